//! Scheduling: sched_setattr(2), ioprio_set(2), personality(2), CPU affinity.

use oci_spec::runtime::{
    self as oci, IOPriorityClass, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy,
};

use super::{CpuAffinity, Error, Scheduler};

/// More CPUs than any kernel is built for (NR_CPUS ends at 8192).
const CPU_MAX: u32 = 8191;
/// ioprio's class stands above 13 bits of priority: linux/ioprio.h.
const IOPRIO_CLASS_SHIFT: i32 = 13;

/// `process.scheduler`, with runc's rules and the kernel's ranges.
pub(super) fn scheduler(given: &Option<oci::Scheduler>) -> Result<Option<Scheduler>, Error> {
    use LinuxSchedulerPolicy::*;
    let Some(given) = given else { return Ok(None) };
    // linux/sched.h
    let policy = match given.policy() {
        SchedOther => 0,
        SchedFifo => 1,
        SchedRr => 2,
        SchedBatch => 3,
        SchedIso => {
            let advice = "the kernel reserves SCHED_ISO and does not have it; choose another policy";
            return Err(Error::unsupported("process.scheduler.policy", advice));
        }
        SchedIdle => 5,
        SchedDeadline => 6,
    };
    let nice = given.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return Err(Error::number(
            "process.scheduler.nice",
            nice,
            "is not between -20 and 19",
        ));
    }
    let priority = given.priority().unwrap_or(0);
    let allowed = match given.policy() {
        SchedFifo | SchedRr => 1..=99,
        _ => 0..=0,
    };
    if !allowed.contains(&priority) {
        let wrong = if *allowed.end() == 0 {
            "is for SCHED_FIFO and SCHED_RR only"
        } else {
            "is not between 1 and 99"
        };
        return Err(Error::number("process.scheduler.priority", priority, wrong));
    }
    let times = [
        ("process.scheduler.runtime", given.runtime().unwrap_or(0)),
        ("process.scheduler.deadline", given.deadline().unwrap_or(0)),
        ("process.scheduler.period", given.period().unwrap_or(0)),
    ];
    if *given.policy() != SchedDeadline
        && let Some((field, time)) = times.iter().find(|(_, time)| *time != 0)
    {
        return Err(Error::number(*field, time, "is for SCHED_DEADLINE only"));
    }
    let [(_, runtime), (_, deadline), (_, period)] = times;
    let flags = given
        .flags()
        .iter()
        .flatten()
        .fold(0, |flags, flag| flags | self::flag(*flag));
    Ok(Some(Scheduler {
        policy,
        flags,
        nice,
        priority: priority as u32,
        runtime,
        deadline,
        period,
    }))
}

/// linux/sched.h's SCHED_FLAG_*.
fn flag(flag: LinuxSchedulerFlag) -> u64 {
    use LinuxSchedulerFlag::*;
    match flag {
        SchedResetOnFork => 0x01,
        SchedFlagReclaim => 0x02,
        SchedFlagDLOverrun => 0x04,
        SchedFlagKeepPolicy => 0x08,
        SchedFlagKeepParams => 0x10,
        SchedFlagUtilClampMin => 0x20,
        SchedFlagUtilClampMax => 0x40,
    }
}

/// `process.ioPriority`.
pub(super) fn io_priority(given: &Option<oci::LinuxIOPriority>) -> Result<Option<i32>, Error> {
    let Some(given) = given else { return Ok(None) };
    let class = match given.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match i32::try_from(given.priority()) {
        Ok(priority @ 0..=7) => Ok(Some(class << IOPRIO_CLASS_SHIFT | priority)),
        _ => Err(Error::number(
            "process.ioPriority.priority",
            given.priority(),
            "is not between 0 and 7",
        )),
    }
}

/// `linux.personality`: the domain; no flags, which the OCI spec does not define any of.
pub(super) fn personality(given: &Option<oci::LinuxPersonality>) -> Result<Option<u64>, Error> {
    let Some(given) = given else { return Ok(None) };
    if given.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(Error::unsupported(
            "linux.personality.flags",
            "the OCI spec defines none; leave them out",
        ));
    }
    Ok(Some(match given.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

/// `process.execCPUAffinity`.
pub(super) fn cpu_affinity(given: &Option<oci::ExecCPUAffinity>) -> Result<Option<CpuAffinity>, Error> {
    let Some(given) = given else { return Ok(None) };
    let list = |field: &str, list: &Option<String>| match list.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => cpus(text)
            .map(Some)
            .ok_or_else(|| Error::invalid(field, text, "is not a list of CPUs like 0-3,7")),
    };
    let initial = list("process.execCPUAffinity.initial", given.initial())?;
    let last = list("process.execCPUAffinity.final", given.cpu_affinity_final())?;
    Ok((initial.is_some() || last.is_some()).then_some(CpuAffinity { initial, last }))
}

fn cpus(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        // 0-4294967295 is a short text and a long list; so is the same range a thousand times.
        if first > last || last > CPU_MAX || cpus.len() > CPU_MAX as usize {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}
