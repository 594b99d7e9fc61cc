//! Behaviours: sentences about a runtime, each with an async function that finds out whether it is true.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::containerd::{Daemon, Version};
use crate::context::{Ctx, Runtime, Worker};
use crate::image;
use crate::leaks;
use crate::prepare::Tools;
use crate::second_try;

type Outcome<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// One sentence about a runtime.
pub struct Behaviour {
    pub subject: &'static str,
    pub name: &'static str,
    run: Box<dyn for<'a> Fn(&'a Ctx) -> Outcome<'a>>,
    differs: Option<&'static str>,
    old_runc_differs: Option<&'static str>,
    new_runc_differs: Option<&'static str>,
    needs_containerd_2: Option<&'static str>,
    gvisor_differs: Option<&'static str>,
    own_containerd: bool,
    patience: Duration,
}

impl Behaviour {
    /// Says that nucleus is meant to differ from runc here, and why: not tried on runc.
    pub fn differs(&mut self, reason: &'static str) -> &mut Self {
        self.differs = Some(reason);
        self
    }

    /// Says why the runc shim of containerd 1.6 alone does otherwise.
    pub fn old_runc_differs(&mut self, reason: &'static str) -> &mut Self {
        self.old_runc_differs = Some(reason);
        self
    }

    /// Says why the runc shim of containerd 2.4 alone does otherwise.
    pub fn new_runc_differs(&mut self, reason: &'static str) -> &mut Self {
        self.new_runc_differs = Some(reason);
        self
    }

    /// Says that containerd 1.6 cannot do this, and why.
    pub fn since_containerd_2(&mut self, reason: &'static str) -> &mut Self {
        self.needs_containerd_2 = Some(reason);
        self
    }

    /// Says why gVisor cannot do this.
    pub fn gvisor_differs(&mut self, reason: &'static str) -> &mut Self {
        self.gvisor_differs = Some(reason);
        self
    }

    /// Gives the test a containerd of its own, because it stops it.
    pub fn own_containerd(&mut self) -> &mut Self {
        self.own_containerd = true;
        self
    }

    /// A limit other than half a minute.
    pub fn within(&mut self, seconds: u64) -> &mut Self {
        self.patience = crate::node::patience(seconds);
        self
    }

    /// A limit so many times as long.
    pub fn be_patient(&mut self, times: u32) {
        self.patience *= times;
    }

    fn reason_to_skip(&self, runtime: Runtime, version: Version) -> Option<&'static str> {
        let by_version = if version == Version::V1 {
            self.old_runc_differs
        } else {
            self.new_runc_differs
        };
        if runtime == Runtime::Runc
            && let Some(reason) = self.differs.or(by_version)
        {
            return Some(reason);
        }
        if runtime == Runtime::Gvisor
            && let Some(reason) = self.gvisor_differs
        {
            return Some(reason);
        }
        if version == Version::V1 {
            self.needs_containerd_2
        } else {
            None
        }
    }
}

/// The behaviours of a suite.
#[derive(Default)]
pub struct Registry {
    subject: &'static str,
    behaviours: Vec<Behaviour>,
}

impl Registry {
    /// What the behaviours that follow are about.
    pub fn subject(&mut self, subject: &'static str) {
        self.subject = subject;
    }

    pub fn add<F>(&mut self, name: &'static str, run: F) -> &mut Behaviour
    where
        F: AsyncFn(&Ctx) -> Result<()> + Copy + 'static,
    {
        // Annotated, so that the closure is taken for one that works with any lifetime.
        let run: Box<dyn for<'a> Fn(&'a Ctx) -> Outcome<'a>> =
            Box::new(move |ctx| Box::pin(async move { run(ctx).await }));
        self.behaviours.push(Behaviour {
            subject: self.subject,
            name,
            run,
            differs: None,
            old_runc_differs: None,
            new_runc_differs: None,
            needs_containerd_2: None,
            gvisor_differs: None,
            own_containerd: false,
            patience: crate::node::patience(30),
        });
        let last = self.behaviours.len() - 1;
        &mut self.behaviours[last]
    }

    /// Those that were added so far.
    pub fn behaviours(&mut self) -> &mut Vec<Behaviour> {
        &mut self.behaviours
    }

    pub fn into_behaviours(self) -> Vec<Behaviour> {
        self.behaviours
    }
}

/// What to run, on what.
#[derive(Clone, Debug)]
pub struct Choice {
    pub filter: Vec<String>,
    pub runtimes: Vec<Runtime>,
    pub versions: Vec<Version>,
    pub jobs: usize,
}

impl Choice {
    pub fn wants(&self, behaviour: &Behaviour) -> bool {
        let title = format!("{}/{}", behaviour.subject, behaviour.name);
        self.filter.is_empty() || self.filter.iter().any(|words| title.contains(words.as_str()))
    }
}

/// How many of a suite's tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// Runs behaviours on every chosen containerd and runtime, the yardstick first.
pub async fn run(behaviours: Vec<Behaviour>, choice: &Choice, tools: &Rc<Tools>) -> Result<Tally> {
    let behaviours: Vec<Rc<Behaviour>> = behaviours
        .into_iter()
        .filter(|one| choice.wants(one))
        .map(Rc::new)
        .collect();
    let image = Rc::new(image::build(tools, &image_file()?)?);
    let mut tally = Tally::default();
    for &version in &choice.versions {
        if let (Version::V1, Err(reason)) = (version, &tools.containerd_1) {
            println!("skip  everything on containerd {}: {reason}", version.name());
            tally.skipped += behaviours.len() * choice.runtimes.len();
            continue;
        }
        let daemon = Rc::new(Daemon::start(tools, version).await?);
        let mut workers = Vec::new();
        for number in 0..choice.jobs {
            let namespace = format!("e2e{}-w{number}", std::process::id());
            workers.push(Rc::new(
                Worker::new(daemon.clone(), tools.clone(), image.clone(), namespace).await?,
            ));
        }
        for &runtime in &choice.runtimes {
            let queue: Rc<RefCell<VecDeque<_>>> = Rc::new(RefCell::new(behaviours.iter().cloned().collect()));
            let total = Rc::new(Cell::new(Tally::default()));
            let running: Vec<_> = workers
                .iter()
                .map(|worker| {
                    let (worker, queue, total) = (worker.clone(), queue.clone(), total.clone());
                    tokio::task::spawn_local(async move {
                        loop {
                            let Some(behaviour) = queue.borrow_mut().pop_front() else {
                                return;
                            };
                            let outcome = try_one(&behaviour, runtime, version, &worker).await;
                            let mut sum = total.get();
                            sum.add(outcome);
                            total.set(sum);
                        }
                    })
                })
                .collect();
            for one in running {
                one.await.context("a worker of the test run")?;
            }
            tally.add(total.get());
        }
        for worker in &workers {
            remove_namespace_cgroups(&worker.namespace);
        }
    }
    Ok(tally)
}

async fn try_one(behaviour: &Rc<Behaviour>, runtime: Runtime, version: Version, worker: &Worker) -> Tally {
    let title = format!("{}/{}", behaviour.subject, behaviour.name);
    let place = format!("{}, {}", runtime.short_name(), version.name());
    if let Some(reason) = behaviour.reason_to_skip(runtime, version) {
        println!("skip  {title} ({place}): {reason}");
        return Tally {
            skipped: 1,
            ..Tally::default()
        };
    }
    let begun = Instant::now();
    let mut outcome = once(behaviour, runtime, version, worker).await;
    // runc is the yardstick, not what is tested: it shows that a behaviour can be had. Its own races are no failure of
    // ours, and are said aloud. Of ours a few a run are tried again.
    if let Err(error) = &outcome {
        let error = indented(&format!("{error:#}"));
        let again = format!("{title} ({place})");
        if runtime == Runtime::Runc {
            println!("again {again}\n{error}");
            outcome = once(behaviour, runtime, version, worker).await;
        } else if second_try::grant(&again, &error) {
            outcome = once(behaviour, runtime, version, worker).await;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    match outcome {
        Ok(()) => {
            println!("ok    {title} ({place}) {seconds:.2} s");
            Tally {
                passed: 1,
                ..Tally::default()
            }
        }
        Err(error) => {
            println!(
                "FAIL  {title} ({place}) {seconds:.2} s\n{}",
                indented(&format!("{error:#}"))
            );
            Tally {
                failed: 1,
                ..Tally::default()
            }
        }
    }
}

async fn once(behaviour: &Rc<Behaviour>, runtime: Runtime, version: Version, worker: &Worker) -> Result<()> {
    if behaviour.own_containerd {
        on_own_containerd(behaviour, runtime, version, worker).await
    } else {
        on_worker(behaviour, runtime, worker).await
    }
}

async fn on_own_containerd(
    behaviour: &Rc<Behaviour>,
    runtime: Runtime,
    version: Version,
    worker: &Worker,
) -> Result<()> {
    let daemon = Rc::new(Daemon::start(&worker.tools, version).await?);
    let namespace = format!("{}o", worker.namespace);
    let own = Worker::new(daemon, worker.tools.clone(), worker.image.clone(), namespace).await?;
    let outcome = on_worker(behaviour, runtime, &own).await;
    remove_namespace_cgroups(&own.namespace);
    outcome
}

thread_local! {
    static COUNTER: Cell<usize> = const { Cell::new(0) };
}

async fn on_worker(behaviour: &Rc<Behaviour>, runtime: Runtime, worker: &Worker) -> Result<()> {
    let number = COUNTER.get() + 1;
    COUNTER.set(number);
    let before = leaks::snapshot(&worker.daemon, &worker.namespace, &[]).await?;
    let ctx = Rc::new(Ctx::new(runtime, worker, number)?);
    let test = {
        let (ctx, behaviour) = (ctx.clone(), behaviour.clone());
        tokio::task::spawn_local(async move { tokio::time::timeout(behaviour.patience, (behaviour.run)(&ctx)).await })
    };
    let mut outcome = match test.await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(anyhow!("not done after {} s", behaviour.patience.as_secs())),
        Err(panic) => Err(anyhow!("{panic}")),
    };
    if outcome.is_err() && worker.daemon.pid().is_none() {
        worker.daemon.start_again().await?;
    }
    let patience = crate::node::patience(30);
    let cleaned = match tokio::time::timeout(patience, ctx.clean_up()).await {
        Ok(cleaned) => cleaned.context("clean up"),
        Err(_) => Err(anyhow!("cleaning up is not done after {} s", patience.as_secs())),
    };
    ctx.forgive_sockets_of_runc();
    let left = leaks::nothing_more_than(&before, &worker.daemon, &worker.namespace, &ctx.socket_names()).await;
    for later in [cleaned, left] {
        outcome = match (outcome, later) {
            (Ok(()), later) => later,
            (Err(first), Err(second)) => Err(anyhow!("{first:#}\nthen: {second:#}")),
            (first, Ok(())) => first,
        };
    }
    outcome.map_err(|error| {
        let text = format!("{error:#}");
        anyhow!("{text}{}", ctx.log(&text))
    })
}

/// runc leaves the directory above its containers' cgroups, which the test run has named; empty, it goes.
pub fn remove_namespace_cgroups(namespace: &str) {
    // On cgroup v2 it is directly below the mount.
    let below = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    for hierarchy in below.map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]) {
        let path = hierarchy.join(namespace);
        if path.is_dir()
            && let Err(error) = std::fs::remove_dir(&path)
        {
            eprintln!("remove {}: {error}", path.display());
        }
    }
    // runc's own directory of the namespace, too.
    std::fs::remove_dir(PathBuf::from("/run/containerd/runc").join(namespace)).ok();
}

/// Where this run's image goes. What earlier runs left there goes away.
pub fn image_file() -> Result<PathBuf> {
    let directory = crate::prepare::target().join("e2e");
    std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    for entry in std::fs::read_dir(&directory)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("image-").and_then(|rest| rest.strip_suffix(".tar"));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            std::fs::remove_file(entry.path()).ok();
        }
    }
    Ok(directory.join(format!("image-{}.tar", std::process::id())))
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("      {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}
