//! Netlink's attributes: length, type, value, padded to four bytes; some hold others (netlink(7)).

/// Attributes in a row.
#[derive(Debug, Clone, Default)]
pub struct Attributes(pub Vec<u8>);

/// Marks an attribute that holds others.
const NESTED: u16 = 0x8000;

impl Attributes {
    /// Adds one with these bytes.
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // The length does not count the padding.
        let length = (4 + value.len()) as u16;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a string, with the zero byte that ends it.
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Adds a number in the network's byte order, as all of nftables' are.
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds one that holds others.
    pub fn nested(self, kind: u16, inner: Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_their_lengths_are_not() {
        let Attributes(bytes) = Attributes::default().text(1, "lo").number(2, 7);
        let mut expected = vec![];
        expected.extend(7_u16.to_ne_bytes());
        expected.extend(1_u16.to_ne_bytes());
        expected.extend(b"lo\0\0");
        expected.extend(8_u16.to_ne_bytes());
        expected.extend(2_u16.to_ne_bytes());
        expected.extend([0, 0, 0, 7]);
        assert_eq!(bytes, expected);
    }
}
