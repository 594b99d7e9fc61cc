//! What a process in a container can reach, beside what it can under runc: the same program looks around in both.

use std::cell::RefCell;
use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::context::Ctx;
use crate::harness::Registry;
use crate::task::policy::handler;

thread_local! {
    /// By containerd's version: what `probe reach` told under runc, which goes first.
    static RUNC: RefCell<BTreeMap<&'static str, Value>> = const { RefCell::new(BTreeMap::new()) };
}

/// Facts that are lists: more entries mean more to attack.
const LISTS: [&str; 8] = [
    "system calls",
    "the same, RuntimeDefault",
    "capabilities",
    "devices",
    "writable proc",
    "writable sys",
    "readable secrets",
    "shared namespaces",
];
/// Facts that are yes or no: yes means more to attack.
const DOORS: [&str; 3] = [
    "gains privileges",
    "mounts in a user namespace",
    "executes from a tmpfs",
];

/// Without a seccomp profile; what calls are left with containerd's default one is added.
async fn look(c: &Ctx, options: &str) -> Result<Value> {
    let mut facts = look_with(c, options, None).await?;
    let profile = crate::spec::runtime_default()?;
    facts["the same, RuntimeDefault"] = look_with(c, options, Some(profile)).await?["system calls"].take();
    Ok(facts)
}

async fn look_with(c: &Ctx, options: &str, profile: Option<Value>) -> Result<Value> {
    let mut container = c.container().args(&["probe", "reach"]);
    if let Some(profile) = profile {
        container = container.spec(|spec| spec["linux"]["seccomp"] = profile);
    }
    if !options.is_empty() {
        container = container.options(handler(options)).spec(|spec| {
            spec["linux"]["resources"]["memory"] = serde_json::json!({"limit": 64 << 20});
        });
    }
    container.output().await?.json()
}

fn row(facts: &Value, name: &str) -> String {
    match &facts[name] {
        Value::Array(list) => list.len().to_string(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn table(columns: &[(&str, &Value)]) -> String {
    let mut text = format!("      {:<30}", "what a container can reach");
    for (name, _) in columns {
        text += &format!("{name:>22}");
    }
    for name in LISTS.iter().chain(&DOORS) {
        text += &format!("\n      {name:<30}");
        for (_, facts) in columns {
            text += &format!("{:>22}", row(facts, name));
        }
    }
    text
}

/// Calls that a distribution's libseccomp is too old to know by name are left out of its filter, whatever the profile
/// says.
fn without_what_runc_cannot_name(facts: &Value, runc: &Value) -> Value {
    const NAME: &str = "the same, RuntimeDefault";
    let newest = runc[NAME]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_i64)
        .max();
    let mut facts = facts.clone();
    if let (Some(calls), Some(newest)) = (facts[NAME].as_array_mut(), newest) {
        calls.retain(|call| call.as_i64().is_none_or(|call| call <= newest));
    }
    facts
}

fn is_no_more_than(ours: &Value, theirs: &Value) -> Result<()> {
    for name in LISTS {
        let list = |facts: &Value| facts[name].as_array().cloned().unwrap_or_default();
        let theirs = list(theirs);
        let more: Vec<Value> = list(ours).into_iter().filter(|entry| !theirs.contains(entry)).collect();
        ensure!(more.is_empty(), "{name}: reached here and not there: {more:?}");
    }
    for name in DOORS {
        ensure!(
            ours[name] == false || theirs[name] == true,
            "{name}: open here and not there"
        );
    }
    Ok(())
}

pub fn register(t: &mut Registry) {
    t.add(
        "a container reaches no more than under runc, and less under a stricter policy",
        async |c| {
            let version = c.daemon.version.name();
            let facts = look(c, "").await?;
            if !c.is_nucleus() {
                RUNC.with_borrow_mut(|all| all.insert(version, facts));
                return Ok(());
            }
            let production = look(c, "mode = \"production\"\n").await?;
            let strict = "mode = \"production\"\nseccomp.profile = [\"strict\"]\n";
            let strict = look(c, strict).await?;
            let runc = RUNC.with_borrow(|all| all.get(version).cloned());
            let columns = [
                ("runc", runc.as_ref().unwrap_or(&Value::Null)),
                ("nucleus", &facts),
                ("production", &production),
                ("with strict filter", &strict),
            ];
            println!("{}", table(&columns));
            is_no_more_than(&production, &facts)?;
            is_no_more_than(&strict, &production)?;
            let calls = |facts: &Value| facts["system calls"].as_array().map_or(0, Vec::len);
            ensure!(
                calls(&strict) > 150 && calls(&strict) + 40 < calls(&facts),
                "{} calls with the strict filter, {} without",
                calls(&strict),
                calls(&facts)
            );
            match &runc {
                Some(runc) => is_no_more_than(&without_what_runc_cannot_name(&facts, runc), runc),
                None => Ok(()),
            }
        },
    )
    .within(60);
}
