//! cgroup.freeze.

use std::time::{Duration, Instant};

use super::{V2, await_event};
use crate::cgroup::Error;
use crate::cgroup::stats::Keyed;

const FREEZE: &str = "cgroup.freeze";
/// How long a freeze may take before it is given up: a process in an uninterruptible sleep cannot be frozen.
const LIMIT: Duration = Duration::from_secs(5);

impl V2 {
    pub fn freeze(&self) -> Result<(), Error> {
        let begun = Instant::now();
        self.part.write(FREEZE, "1")?;
        if await_event(&self.part, "frozen", 1, LIMIT)? {
            return Ok(());
        }
        self.thaw()?;
        Err(Error::FreezeTimeout {
            file: self.part.file("cgroup.events"),
            state: "frozen 0".into(),
            milliseconds: begun.elapsed().as_millis(),
        })
    }

    pub fn thaw(&self) -> Result<(), Error> {
        self.part.write(FREEZE, "0")
    }

    pub fn is_frozen(&self) -> Result<bool, Error> {
        let asked = self.part.read_if_there(FREEZE)?;
        if asked.as_deref().map(str::trim_end) != Some("1") {
            return Ok(false);
        }
        Ok(Keyed::parse(&self.part.read("cgroup.events")?).get("frozen") == 1)
    }
}
