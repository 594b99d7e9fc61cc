//! The shim's log: lines of text, written to the fifo `log` in the bundle, from which containerd copies them to its
//! own.
//!
//! Never blocks and never fails: a line that does not fit into the fifo, or that nobody reads, is dropped. The fifo is
//! opened when there is something to say, as most shims never have.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Fifo {
    path: PathBuf,
    id: String,
    namespace: String,
}

static FIFO: OnceLock<Fifo> = OnceLock::new();

/// Logs to `log` in the working directory from now on, panics too.
pub fn install(id: &str, namespace: &str, debug: bool) {
    // Absolute, since the bundle is renamed away under a shim that outlives it: then there is nobody to read.
    let path = std::env::current_dir().unwrap_or_default().join("log");
    let fifo = FIFO.get_or_init(|| Fifo {
        path,
        id: id.to_owned(),
        namespace: namespace.to_owned(),
    });
    if log::set_logger(fifo).is_ok() {
        log::set_max_level(if debug { LevelFilter::Debug } else { LevelFilter::Info });
    }
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
}

impl Log for Fifo {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Without a reader this fails with ENXIO; a full fifo makes the write fail with EAGAIN.
        let Ok(mut file) = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&self.path)
        else {
            return;
        };
        let mut message = String::new();
        if write!(message, "{}", record.args()).is_err() {
            return;
        }
        let _ = file.write_all(line(record.level(), &message, &self.id, &self.namespace, SystemTime::now()).as_bytes());
    }

    fn flush(&self) {}
}

/// One line as logrus' text formatter writes it.
fn line(level: Level, message: &str, id: &str, namespace: &str, now: SystemTime) -> String {
    let level = match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let time = rfc3339(now);
    format!("time=\"{time}\" level={level} msg={message:?} id={id:?} namespace={namespace:?} runtime=nucleus\n")
}

/// UTC to the nanosecond. The calendar is Howard Hinnant's `civil_from_days`
/// (https://howardhinnant.github.io/date_algorithms.html): no time zone database is read for a log line.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z",
        since.subsec_nanos()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_those_of_the_gregorian_calendar() {
        let at = |seconds, nanos| rfc3339(UNIX_EPOCH + Duration::new(seconds, nanos));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_400, 5), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(at(1_709_251_199, 0), "2024-02-29T23:59:59.000000000Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000000000Z");
    }

    #[test]
    fn a_message_cannot_forge_a_second_line() {
        let line = line(Level::Warn, "a \"b\"\nlevel=info", "c1", "default", UNIX_EPOCH);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(
            line.contains(r#"level=warning msg="a \"b\"\nlevel=info" id="c1""#),
            "{line}"
        );
    }
}
