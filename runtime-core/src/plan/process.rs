//! A process: init or an exec.

use std::collections::HashSet;
use std::fmt::Display;

use oci_spec::runtime::{self as oci, PosixRlimitType as Limit};

use super::{Capabilities, Error, Lsms, Namespace, Namespaces, Process, Rlimit, capability, namespace, path, schedule};

/// Supplementary groups: NGROUPS_MAX, see setgroups(2).
const GROUPS_MAX: usize = 65_536;

/// What `given` says, and nothing about where it differs between init and execs: capabilities that are not given are
/// none, scheduling and such that is not given is left alone.
pub(super) fn process(given: &oci::Process, limit: u64, lsms: Lsms, namespaces: &Namespaces) -> Result<Process, Error> {
    refuse(given)?;
    let (apparmor_profile, selinux_label) = labels(given, lsms)?;
    let (uid, gid, groups) = user(given.user(), namespaces)?;
    let terminal = given.terminal().unwrap_or(false);
    Ok(Process {
        args: args(given.args())?,
        env: environment(&"process.env", given.env())?,
        cwd: cwd(given)?,
        uid,
        gid,
        groups,
        umask: umask(given.user())?,
        capabilities: Some(match given.capabilities() {
            Some(given) => capability::capabilities(given, limit)?,
            None => Capabilities::default(),
        }),
        no_new_privileges: given.no_new_privileges().unwrap_or(false),
        apparmor_profile,
        selinux_label,
        deny_write_execute: false,
        seccomp: Vec::new(),
        listener: None,
        rlimits: rlimits(given.rlimits())?,
        oom_score_adj: oom_score_adj(given.oom_score_adj())?,
        terminal,
        // Without a terminal it has no meaning: the OCI spec demands that it be ignored then.
        console_size: if terminal {
            console_size(given.console_size())?
        } else {
            None
        },
        scheduler: schedule::scheduler(given.scheduler())?,
        io_priority: schedule::io_priority(given.io_priority())?,
        personality: None,
        cpu_affinity: None,
    })
}

fn refuse(given: &oci::Process) -> Result<(), Error> {
    let set = |value: &Option<String>| value.as_deref().is_some_and(|value| !value.is_empty());
    if set(given.command_line()) {
        return Err(Error::unsupported(
            "process.commandLine",
            "it is for Windows; use process.args",
        ));
    }
    if set(given.user().username()) {
        return Err(Error::unsupported(
            "process.user.username",
            "it is for Windows; use process.user.uid",
        ));
    }
    Ok(())
}

/// The AppArmor profile and the SELinux label; empty is none. What the host cannot enforce is not run without it.
fn labels(given: &oci::Process, lsms: Lsms) -> Result<(Option<String>, Option<String>), Error> {
    const ADVICE: &str =
        "the kernel of this host does not have that security module enabled; enable it, or remove the field";
    let label = |field: &'static str, value: &Option<String>, enabled: bool| {
        let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        if !enabled {
            return Err(Error::unsupported(format!("{field} {value:?}"), ADVICE));
        }
        if value.bytes().any(|byte| byte == 0 || byte == b'\n') {
            return Err(Error::invalid(field, value, "has a NUL or a newline in it"));
        }
        Ok(Some(value.to_owned()))
    };
    let profile = given
        .apparmor_profile()
        .clone()
        // Where there is no AppArmor everything is unconfined.
        .filter(|profile| lsms.apparmor || profile != "unconfined");
    Ok((
        label("process.apparmorProfile", &profile, lsms.apparmor)?,
        label("process.selinuxLabel", given.selinux_label(), lsms.selinux)?,
    ))
}

fn args(given: &Option<Vec<String>>) -> Result<Vec<String>, Error> {
    let args = given.as_deref().unwrap_or_default();
    match args.first() {
        None => {
            return Err(Error::Missing {
                field: "process.args".into(),
            });
        }
        Some(program) if program.is_empty() => {
            return Err(Error::Missing {
                field: "process.args[0]".into(),
            });
        }
        Some(_) => {}
    }
    if let Some(bad) = args.iter().find(|arg| arg.contains('\0')) {
        return Err(Error::invalid("process.args", bad, "has a NUL in it"));
    }
    Ok(args.to_vec())
}

/// An environment: every entry `NAME=value`; of two with one name the last one counts, as with runc since 1.3.
pub(super) fn environment(field: &dyn Display, given: &Option<Vec<String>>) -> Result<Vec<String>, Error> {
    let given = given.as_deref().unwrap_or_default();
    let mut names = HashSet::with_capacity(given.len());
    let mut env = Vec::with_capacity(given.len());
    for entry in given.iter().rev() {
        match entry.find('=') {
            None => return Err(Error::invalid(field, entry, "has no `=`")),
            Some(0) => return Err(Error::invalid(field, entry, "has no name before the `=`")),
            Some(_) if entry.contains('\0') => return Err(Error::invalid(field, entry, "has a NUL in it")),
            Some(end) if names.insert(&entry[..end]) => env.push(entry.clone()),
            Some(_) => {}
        }
    }
    env.reverse();
    Ok(env)
}

fn cwd(given: &oci::Process) -> Result<String, Error> {
    let cwd = path::text(&"process.cwd", given.cwd())?;
    path::check_absolute(&"process.cwd", cwd)?;
    Ok(cwd.into())
}

fn user(given: &oci::User, namespaces: &Namespaces) -> Result<(u32, u32, Vec<u32>), Error> {
    let id = |field: &str, id: u32, map: &[super::IdMap]| {
        // (uid_t) -1 says "unchanged" to setresuid(2): whoever let it through would leave root in place.
        if id == u32::MAX {
            return Err(Error::number(field, id, "is nobody's id"));
        }
        let known = namespaces.user != Namespace::Host && !map.is_empty();
        if known && !namespace::maps_id(map, id) {
            return Err(Error::Unmapped {
                field: field.into(),
                id,
            });
        }
        Ok(id)
    };
    let uid = id("process.user.uid", given.uid(), &namespaces.uid_map)?;
    let gid = id("process.user.gid", given.gid(), &namespaces.gid_map)?;
    let groups = given.additional_gids().as_deref().unwrap_or_default();
    if groups.len() > GROUPS_MAX {
        return Err(Error::number(
            "process.user.additionalGids",
            groups.len(),
            "groups are more than the kernel's 65536",
        ));
    }
    for &group in groups {
        id("process.user.additionalGids", group, &namespaces.gid_map)?;
    }
    Ok((uid, gid, groups.to_vec()))
}

fn umask(given: &oci::User) -> Result<Option<u32>, Error> {
    match given.umask() {
        Some(mask) if mask > 0o777 => Err(Error::number("process.user.umask", mask, "is not a file mode mask")),
        mask => Ok(mask),
    }
}

fn oom_score_adj(given: Option<i32>) -> Result<Option<i32>, Error> {
    match given {
        Some(score) if !(-1000..=1000).contains(&score) => Err(Error::number(
            "process.oomScoreAdj",
            score,
            "is not between -1000 and 1000",
        )),
        score => Ok(score),
    }
}

fn console_size(given: Option<oci::Box>) -> Result<Option<(u16, u16)>, Error> {
    let Some(size) = given else { return Ok(None) };
    let side = |field: &str, side: u64| {
        u16::try_from(side).map_err(|_| Error::number(field, side, "is more than a terminal can have (65535)"))
    };
    let height = side("process.consoleSize.height", size.height())?;
    Ok(Some((height, side("process.consoleSize.width", size.width())?)))
}

fn rlimits(given: &Option<Vec<oci::PosixRlimit>>) -> Result<Vec<Rlimit>, Error> {
    let mut limits: Vec<Rlimit> = Vec::new();
    for limit in given.iter().flatten() {
        let (resource, name) = resource(limit.typ());
        let resource = resource as u32;
        if limits.iter().any(|earlier| earlier.resource == resource) {
            // The OCI spec demands an error here.
            return Err(Error::duplicate("process.rlimits", name));
        }
        if limit.soft() > limit.hard() {
            let field = format!("process.rlimits: {name}: soft");
            return Err(Error::number(field, limit.soft(), "is above the hard limit"));
        }
        limits.push(Rlimit {
            resource,
            soft: limit.soft(),
            hard: limit.hard(),
        });
    }
    Ok(limits)
}

/// The kernel's number, whose C type differs between libraries, and the name.
macro_rules! resources {
    ($($variant:ident $name:ident),* $(,)?) => {
        fn resource(limit: Limit) -> (i64, &'static str) {
            match limit {
                $(Limit::$variant => (i64::from(libc::$name), stringify!($name)),)*
            }
        }
    };
}

resources! {
    RlimitCpu RLIMIT_CPU,
    RlimitFsize RLIMIT_FSIZE,
    RlimitData RLIMIT_DATA,
    RlimitStack RLIMIT_STACK,
    RlimitCore RLIMIT_CORE,
    RlimitRss RLIMIT_RSS,
    RlimitNproc RLIMIT_NPROC,
    RlimitNofile RLIMIT_NOFILE,
    RlimitMemlock RLIMIT_MEMLOCK,
    RlimitAs RLIMIT_AS,
    RlimitLocks RLIMIT_LOCKS,
    RlimitSigpending RLIMIT_SIGPENDING,
    RlimitMsgqueue RLIMIT_MSGQUEUE,
    RlimitNice RLIMIT_NICE,
    RlimitRtprio RLIMIT_RTPRIO,
    RlimitRttime RLIMIT_RTTIME,
}
