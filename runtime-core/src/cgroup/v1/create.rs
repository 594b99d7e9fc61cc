//! Making a container's cgroups.

use oci_spec::runtime::LinuxResources;

use super::V1;
use super::limits::cpuset;
use crate::cgroup::Error;
use crate::cgroup::directory::{Directory, Made};

impl V1 {
    pub fn check_free(&self) -> Result<(), Error> {
        let main = self.main()?;
        if main.has("") { unused(main) } else { Ok(()) }
    }

    /// `inhabited`: systemd made some of them a moment ago, with a process in them.
    pub fn create(&self, resources: Option<&LinuxResources>, inhabited: bool) -> Result<(), Error> {
        if let Some(resources) = resources {
            self.check_limits(resources)?;
        }
        let mut made = Vec::new();
        let result = self.make_all(&mut made, resources, inhabited);
        if result.is_err() {
            made.iter()
                .rev()
                .for_each(|(part, new): &(&Directory, Vec<String>)| part.unmake(new));
        }
        result
    }

    fn make_all<'a>(
        &'a self,
        made: &mut Vec<(&'a Directory, Vec<String>)>,
        resources: Option<&LinuxResources>,
        inhabited: bool,
    ) -> Result<(), Error> {
        let cpu = resources.and_then(|resources| resources.cpu().as_ref());
        for part in self.all() {
            let has_cpuset = part.hierarchy.has("cpuset");
            match part.make()? {
                Made::New(new) => {
                    made.push((part, new));
                    if has_cpuset {
                        cpuset::fill(part, cpu)?;
                    }
                }
                Made::Existed => {
                    if !inhabited {
                        unused(part)?;
                    }
                    if has_cpuset {
                        cpuset::fill_existing(part)?;
                    }
                }
            }
        }
        self.set_devices(resources)?;
        resources.map_or(Ok(()), |resources| self.set_limits(resources))
    }
}

/// A cgroup that was there may be used, unless processes are in it or it is frozen: a second container would share the
/// first one's limits and fate (runc refuses both since 1.1).
fn unused(part: &Directory) -> Result<(), Error> {
    let count = crate::cgroup::processes::processes(part)?.len();
    if count > 0 {
        return Err(Error::Busy {
            file: part.file("cgroup.procs"),
            count,
        });
    }
    if !part.hierarchy.has("freezer") {
        return Ok(());
    }
    match part.read("freezer.state")?.trim_end() {
        "THAWED" => Ok(()),
        state => Err(Error::AlreadyFrozen {
            file: part.file("freezer.state"),
            state: state.into(),
        }),
    }
}
