//! Protobuf's wire format, read only.

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Number,
    Bytes(&'a [u8]),
}

/// Bytes that are no message.
#[derive(Debug)]
pub(super) struct Malformed;

/// The fields of a message, in order.
pub(super) fn fields(mut bytes: &[u8]) -> Result<Vec<(u32, Field<'_>)>, Malformed> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed)?;
        let value = match tag & 7 {
            0 => {
                varint(&mut bytes)?;
                Field::Number
            }
            1 => {
                take(&mut bytes, 8)?;
                Field::Number
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|_| Malformed)?;
                Field::Bytes(take(&mut bytes, length)?)
            }
            5 => {
                take(&mut bytes, 4)?;
                Field::Number
            }
            _ => return Err(Malformed),
        };
        found.push((number, value));
    }
    Ok(found)
}

/// A field's text, if it is one.
pub(super) fn string(field: &Field<'_>) -> Option<String> {
    match field {
        Field::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok(),
        Field::Number => None,
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or(Malformed)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn malformed_bytes_are_refused() {
        for bytes in [&[0x0a, 5, 1][..], &[0x80], &[0x0b], &[0xff; 11], &[0x09, 1]] {
            assert!(fields(bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(fields(&[0x08, 0x96, 0x01, 0x12, 1, 7]).unwrap().len(), 2);
    }
}
