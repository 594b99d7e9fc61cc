//! Points in time, as containerd's messages carry them.

use std::time::{SystemTime, UNIX_EPOCH};

use protobuf::MessageField;
use protobuf::well_known_types::timestamp::Timestamp;

/// Seconds before 1970 of Go's zero time, 1 January of year 1: what containerd takes for "not yet". A missing timestamp
/// would be read as 1970.
const GO_ZERO: i64 = -62_135_596_800;

/// `time` as a message field.
pub fn message(time: SystemTime) -> MessageField<Timestamp> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let timestamp = Timestamp {
        seconds: since.as_secs() as i64,
        nanos: since.subsec_nanos() as i32,
        ..Timestamp::new()
    };
    MessageField::some(timestamp)
}

/// A point in time that has not come yet.
pub fn never() -> MessageField<Timestamp> {
    MessageField::some(Timestamp {
        seconds: GO_ZERO,
        ..Timestamp::new()
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nanoseconds_are_kept() {
        let timestamp = message(UNIX_EPOCH + Duration::new(7, 9)).unwrap();
        assert_eq!((timestamp.seconds, timestamp.nanos), (7, 9));
    }
}
