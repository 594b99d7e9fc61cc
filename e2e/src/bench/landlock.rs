//! `cargo e2e bench landlock`: what the tiers cost. The same container under each of them, in interleaved rounds of one
//! run, on nucleus alone; what a tier takes more than none is its cost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use super::figures::Summary;
use super::rounds::{PAUSE, Streams};
use crate::containerd::{Daemon, Version};
use crate::context::{Ctx, Runtime, Worker};
use crate::prepare;
use crate::task::policy::handler;
use crate::{harness, image};

/// Rounds before the first that counts.
const WARM_UP: u32 = 3;

/// A name and the handler's options. The last has a rule of each kind, and a proc that is made for it.
const SUBJECTS: [(&str, &str); 5] = [
    ("none", "landlock.tier = 'none'\n"),
    ("baseline", "landlock.tier = 'baseline'\n"),
    ("hardened", "landlock.tier = 'hardened'\n"),
    ("strict", "landlock.tier = 'strict'\n"),
    (
        "strict_with_rules",
        "[landlock]\ntier = 'strict'\nread = ['/bin', '/etc', '/proc', '/usr']\nwrite = ['/tmp', '/run', '/proc']\n\
         execute = ['/bin', '/usr']\ntcp_bind = ['80', '443']\ntcp_connect = ['5432', '6379']\n",
    ),
];

const OPERATIONS: [&str; 3] = ["create_start", "exec", "delete"];

/// Milliseconds, by operation and subject.
type Figures = BTreeMap<(&'static str, &'static str), Vec<f64>>;

/// Measures, prints the table, and writes the JSON where that is asked for.
pub async fn bench(rounds: u32, json: Option<&PathBuf>, args: &prepare::PrepareArgs) -> Result<()> {
    let tools = Rc::new(prepare::prepare(args).await?);
    let image = Rc::new(image::build(&tools, &harness::image_file()?)?);
    let daemon = Rc::new(Daemon::start_for_measuring(&tools, Version::V2, Vec::new()).await?);
    let namespace = format!("e2e{}-bench", std::process::id());
    let worker = Worker::new(daemon, tools, image, namespace.clone()).await?;
    let mut figures = Figures::new();
    let outcome = measure(&worker, rounds, &mut figures).await;
    harness::remove_namespace_cgroups(&namespace);
    outcome?;
    print(&figures, &super::conditions(args)?);
    if let Some(file) = json {
        let text = format!("{:#}\n", to_json(&figures));
        std::fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
        println!("\nFigures: {}", file.display());
    }
    Ok(())
}

async fn measure(worker: &Worker, rounds: u32, figures: &mut Figures) -> Result<()> {
    let mut number = 0;
    let mut seen = Figures::new();
    for round in 0..WARM_UP + rounds {
        if round % 10 == 0 {
            eprintln!("bench: round {round} of {} …", WARM_UP + rounds);
        }
        let mut order = SUBJECTS;
        order.rotate_left(usize::try_from(round)? % SUBJECTS.len());
        let counted = if round < WARM_UP { &mut seen } else { &mut *figures };
        for (subject, options) in order {
            number += 1;
            let ctx = Ctx::new(Runtime::Nucleus, worker, number)?;
            let outcome = life(&ctx, options, |operation, milliseconds| {
                counted.entry((operation, subject)).or_default().push(milliseconds);
            })
            .await;
            let cleaned = ctx.clean_up().await;
            outcome.with_context(|| format!("round {round} of {subject}"))?;
            cleaned?;
        }
    }
    Ok(())
}

/// One container from its making to its end, each operation after a pause.
async fn life(ctx: &Ctx, options: &str, mut add: impl FnMut(&'static str, f64)) -> Result<()> {
    let quiet = async || {
        tokio::time::sleep(PAUSE).await;
        Instant::now()
    };
    let milliseconds = |begun: Instant| begun.elapsed().as_secs_f64() * 1000.0;
    let streams = Streams::new(ctx, "init")?;
    let prepared = ctx.container().waiting().options(handler(options));
    let prepared = prepared.streams(streams.uris()).prepare().await?;
    let begun = quiet().await;
    let container = prepared.create().await?;
    container.start().await?;
    add(OPERATIONS[0], milliseconds(begun));

    let streams = Streams::new(ctx, "exec")?;
    let exec = container.exec(&["/bin/true"]).streams(streams.uris());
    let begun = quiet().await;
    let process = exec.create().await?;
    process.start().await?;
    let code = process.wait().await?;
    process.delete().await?;
    add(OPERATIONS[1], milliseconds(begun));
    ensure!(code == 0, "/bin/true by exec ended with {code}");

    container.kill(9).await?;
    container.wait().await?;
    let begun = quiet().await;
    container.delete().await?;
    add(OPERATIONS[2], milliseconds(begun));
    Ok(())
}

fn summary(figures: &Figures, operation: &'static str, subject: &'static str) -> Summary {
    let values = figures.get(&(operation, subject));
    values.and_then(|values| Summary::of(values)).unwrap_or_default()
}

fn print(figures: &Figures, conditions: &str) {
    println!(
        "\nEach operation after 30 ms of quiet, in ms; medians, 90th percentiles in brackets, and what is more than \
         without\n"
    );
    print!("{:<14}", "");
    for (subject, _) in SUBJECTS {
        print!(" {:>24}", subject.replace('_', " "));
    }
    println!();
    for operation in OPERATIONS {
        print!("{:<14}", operation.replace('_', " + "));
        let none = summary(figures, operation, SUBJECTS[0].0).median;
        for (subject, _) in SUBJECTS {
            let Summary { median, p90, .. } = summary(figures, operation, subject);
            print!(" {:>24}", format!("{median:.2} ({p90:.2}) {:+.2}", median - none));
        }
        println!();
    }
    println!("\nNothing is taken off for the client or containerd: it is in all of them alike.\n{conditions}");
}

fn to_json(figures: &Figures) -> Value {
    let mut all = Map::new();
    for operation in OPERATIONS {
        let mut entry = Map::from_iter([("unit".to_owned(), json!("ms"))]);
        for (subject, _) in SUBJECTS {
            entry.insert(subject.to_owned(), summary(figures, operation, subject).to_json());
        }
        all.insert(operation.to_owned(), Value::Object(entry));
    }
    Value::Object(all)
}
