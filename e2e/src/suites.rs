//! `cargo e2e test`: which suites there are, and how a run ends.

use std::process::ExitCode;
use std::rc::Rc;

use anyhow::{Result, bail};
use clap::Args;

use crate::containerd::Version;
use crate::context::Runtime;
use crate::harness::{Behaviour, Choice, Registry, Tally};
use crate::prepare::go_tools::{self, Group};
use crate::{
    chart_suite, churn, client_suite, cri, gvisor, hardening, harness, kind_suite, node_suite, prepare, second_try,
    software, task, unit,
};

/// What is tested, on what.
#[derive(Args)]
#[command(after_help = "\
Suites:
  unit    the crates' own tests, clippy and rustfmt
  task    the behaviour of a runtime under containerd, by gRPC, ttrpc and ctr; runc's shim goes first as the yardstick
  client  containerd's own tests of its client: what passes with runc's shim has to pass with nucleus
  cri     pods through containerd's CRI service: Kubernetes' critest, compared with handler runc, and behaviours of \
  our own
  kind    pods on real Kubernetes clusters, offline: kind, its nodes and images made here
  node    behaviours on cgroup v2, systemd's driver and AppArmor, in an emulated Debian 12
  hardening  attacks that worked elsewhere, with canaries on the host, and what a container can reach beside runc's
  chart   the Helm chart and the node installer: templates, schemas, and real containerd installed on, upgraded and \
  cleaned
  gvisor  the behaviours of `task` that gVisor can have, with its runtime set to gvisor; what is particular to it
  software  servers, languages and tools of Debian's do what they do under runc; production mode's policy
  churn   300 containers started, exec'd into and deleted, every third with its shim killed

Examples:
  cargo e2e test                                       everything that this machine can run
  cargo e2e test task --list                           the behaviours by name
  cargo e2e test task -k exec/ --runtime nucleus       those with `exec/` in their names, on nucleus alone
  cargo e2e test task --containerd 1.6.20 --profile quick")]
pub struct TestArgs {
    /// Suites to run; none means all
    suites: Vec<String>,
    /// Name the behaviours instead of trying them
    #[arg(long)]
    pub list: bool,
    /// Only behaviours with this text in `subject/name`; may be given more than once
    #[arg(short = 'k', long = "filter", value_name = "TEXT")]
    filter: Vec<String>,
    /// Only this runtime; may be given more than once (default: runc's, then ours)
    #[arg(long, value_enum)]
    runtime: Vec<Runtime>,
    /// Only this containerd; may be given more than once (default: both)
    #[arg(long, value_enum)]
    containerd: Vec<Version>,
    /// How many tests run at the same time
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Nodes of the suite kind from kind's official image, of this machine's docker or an archive of `docker save`
    #[arg(long, value_name = "IMAGE")]
    node_image: Option<String>,
    #[command(flatten)]
    prepare: prepare::PrepareArgs,
}

/// A suite: its name and where its behaviours come from.
struct Suite {
    name: &'static str,
    register: fn(&mut Registry),
}

/// Suites that are made of behaviours; `unit` is made of commands.
const SUITES: [Suite; 5] = [
    Suite {
        name: "task",
        register: task::register,
    },
    Suite {
        name: hardening::NAME,
        register: hardening::register,
    },
    Suite {
        name: gvisor::NAME,
        register: gvisor::register,
    },
    Suite {
        name: software::NAME,
        register: software::register,
    },
    Suite {
        name: "churn",
        register: churn::register,
    },
];

const UNIT: &str = "unit";

impl TestArgs {
    fn choice(&self) -> Choice {
        let or = |given: &[Runtime]| {
            if given.is_empty() {
                vec![Runtime::Runc, Runtime::Nucleus]
            } else {
                given.to_vec()
            }
        };
        let versions = if self.containerd.is_empty() {
            vec![Version::V2, Version::V1]
        } else {
            self.containerd.clone()
        };
        Choice {
            filter: self.filter.clone(),
            runtimes: or(&self.runtime),
            versions,
            jobs: self.jobs.max(1),
        }
    }

    fn wants(&self, suite: &str) -> bool {
        self.suites.is_empty() || self.suites.iter().any(|name| name == suite)
    }

    /// Filters name behaviours of ours, unless this suite is asked for by its name.
    fn wants_foreign(&self, suite: &str) -> bool {
        let named = self.suites.iter().any(|name| name == suite);
        named || (self.wants(suite) && self.filter.is_empty())
    }

    fn check(&self) -> Result<()> {
        let foreign = [
            client_suite::NAME,
            cri::NAME,
            node_suite::NAME,
            chart_suite::NAME,
            kind_suite::NAME,
        ];
        let known: Vec<&str> = [UNIT]
            .into_iter()
            .chain(foreign)
            .chain(SUITES.iter().map(|suite| suite.name))
            .collect();
        match self.suites.iter().find(|name| !known.contains(&name.as_str())) {
            Some(name) => bail!("there is no suite `{name}`; there are: {}", known.join(", ")),
            None => Ok(()),
        }
    }
}

fn behaviours(suite: &Suite) -> Vec<Behaviour> {
    let mut registry = Registry::default();
    (suite.register)(&mut registry);
    registry.into_behaviours()
}

/// `--list`.
pub fn list(args: &TestArgs) -> Result<ExitCode> {
    args.check()?;
    let choice = args.choice();
    let mut count = 0;
    for suite in SUITES.iter().filter(|suite| args.wants(suite.name)) {
        for behaviour in behaviours(suite).iter().filter(|behaviour| choice.wants(behaviour)) {
            println!("{}: {}/{}", suite.name, behaviour.subject, behaviour.name);
            count += 1;
        }
    }
    for (name, line) in [(client_suite::NAME, client_suite::LIST), (cri::NAME, cri::LIST)] {
        if args.wants_foreign(name) {
            println!("{line}");
        }
    }
    if args.wants_foreign(cri::NAME) {
        for line in cri::list(&args.filter) {
            println!("{line}");
            count += 1;
        }
    }
    if args.wants_foreign(node_suite::NAME) {
        println!("{}", node_suite::LIST);
        for title in node_suite::titles() {
            println!("node: {title}");
            count += 1;
        }
    }
    if args.wants_foreign(chart_suite::NAME) {
        count += chart_suite::list(&args.filter);
    }
    if args.wants_foreign(kind_suite::NAME) {
        count += kind_suite::list(&args.filter);
    }
    println!("{count} behaviours");
    Ok(ExitCode::SUCCESS)
}

/// Builds programs that later suites need where the earlier ones leave processors idle. A build that fails is made
/// again, and its failure told, by the suite that needs it.
fn build_ahead(groups: &[(bool, &'static Group)]) {
    let wanted: Vec<&Group> = groups
        .iter()
        .filter(|(is_wanted, _)| *is_wanted)
        .map(|(_, group)| *group)
        .collect();
    tokio::task::spawn_local(async move {
        for group in wanted {
            if let Err(error) = group.build_ahead().await {
                eprintln!("prepare: {}: {error:#}", group.name);
            }
        }
    });
}

/// Runs the chosen suites.
pub async fn test(args: TestArgs) -> Result<ExitCode> {
    args.check()?;
    let choice = args.choice();
    let mut results: Vec<(&str, Tally)> = Vec::new();
    let with = |suite: &str| args.wants_foreign(suite);
    let (with_client, with_cri, with_chart) = (with(client_suite::NAME), with(cri::NAME), with(chart_suite::NAME));
    let (with_node, with_kind) = (with(node_suite::NAME), with(kind_suite::NAME));
    let with_gvisor = args.wants(gvisor::NAME) && choice.runtimes.contains(&Runtime::Nucleus);
    build_ahead(&[
        (with_cri || with_kind, &go_tools::CRI),
        (with_chart || with_kind, &go_tools::HELM),
        (with_gvisor, &go_tools::GVISOR),
        (with_kind, &go_tools::KUBERNETES),
        (with_kind, &go_tools::ETCD),
        (with_kind, &go_tools::KIND),
    ]);
    if args.wants_foreign(UNIT) {
        results.push((UNIT, unit::run(&args.filter).await?));
    }
    let others = with_client || with_cri || with_chart || with_node || with_kind;
    if others || SUITES.iter().any(|suite| args.wants(suite.name)) {
        let tools = Rc::new(prepare::prepare(&args.prepare).await?);
        if with_client {
            let tally = client_suite::run(&tools, &choice.runtimes, &args.filter).await?;
            results.push((client_suite::NAME, tally));
        }
        if with_cri {
            let tally = cri::run(&tools, &choice.runtimes, &choice.versions, &args.filter).await?;
            results.push((cri::NAME, tally));
        }
        if with_chart {
            let tally = chart_suite::run(&tools, &choice.versions, &args.filter).await?;
            results.push((chart_suite::NAME, tally));
        }
        for suite in SUITES.iter().filter(|suite| args.wants(suite.name)) {
            let tally = match suite.name {
                gvisor::NAME if !with_gvisor => continue,
                gvisor::NAME => gvisor::run(behaviours(suite), &choice, &tools).await?,
                software::NAME => software::run(behaviours(suite), &choice, &tools).await?,
                _ => harness::run(behaviours(suite), &choice, &tools).await?,
            };
            results.push((suite.name, tally));
            if suite.name == hardening::NAME {
                println!("{}", hardening::summary());
            }
        }
        // Last: what they need takes longest, and is built while the others wait.
        if with_node {
            let tally = node_suite::run(&tools, &choice.runtimes, &args.filter).await;
            results.push((node_suite::NAME, tally));
        }
        if with_kind {
            results.push((
                kind_suite::NAME,
                kind_suite::run(&tools, &args.filter, args.node_image.as_deref()).await?,
            ));
        }
    }
    let mut total = Tally::default();
    println!();
    if let Some(names) = second_try::summary() {
        println!("{names}");
    }
    for (name, tally) in results {
        println!("{name}: {tally}");
        total.add(tally);
    }
    println!("{total}");
    Ok(if total.failed == 0 && total.passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is between backquotes.
    fn quoted(text: &str) -> impl Iterator<Item = &str> {
        text.split('`').skip(1).step_by(2)
    }

    fn exists(named: &str) -> bool {
        let Some((suite, name)) = named.split_once('/') else {
            return [UNIT, "client", "cri", "chart", "node"].contains(&named);
        };
        let Some(suite) = SUITES.iter().find(|known| known.name == suite) else {
            return false;
        };
        let mut registry = Registry::default();
        (suite.register)(&mut registry);
        let all = registry.into_behaviours();
        let mut names = all.iter().map(|one| format!("{}/{}", one.subject, one.name));
        names.any(|known| known == name || (name.ends_with('/') && known.starts_with(name)))
    }

    #[test]
    fn every_claim_of_the_threat_model_names_tests_that_there_are() {
        let page = include_str!("../../docs/threat-model.md");
        let rows = page.lines().skip_while(|line| !line.ends_with("| shown by |")).skip(2);
        let rows: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
        assert!(rows.len() >= 16, "{} rows", rows.len());
        for row in rows {
            let shown = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
            assert!(quoted(shown).next().is_some(), "no test is named: {row}");
            for named in quoted(shown) {
                assert!(exists(named), "there is no {named:?}");
            }
        }
    }
}
