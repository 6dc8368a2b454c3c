//! Bytes to send, and bytes made legible.

use std::sync::LazyLock;

/// The most bytes that [`pattern`] returns at once.
pub const CHUNK: usize = 64 * 1024;

/// The pattern repeats after this many bytes: a prime, so that no buffer
/// size divides it and a block that is lost, doubled or moved is seen; and
/// more than a chunk, so that a chunk can start anywhere in two of them.
const PERIOD: usize = 65_537;

/// A message longer than this is cut when it is shown.
const SHOWN: usize = 32;

static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    // Marsaglia's xorshift: no two places of the period look alike.
    let mut state: u32 = 0x9e37_79b9;
    let mut bytes: Vec<u8> = (0..PERIOD)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_be_bytes()[0]
        })
        .collect();
    bytes.extend_from_within(..);
    bytes
});

/// The bytes from `offset` on of an endless, reproducible stream: `length` of
/// them, at most [`CHUNK`].
///
/// ```
/// use grade::bytes::pattern;
/// assert_eq!(pattern(1, 10), &pattern(0, 11)[1..]);
/// ```
#[must_use]
pub fn pattern(offset: u64, length: usize) -> &'static [u8] {
    let start = (offset % PERIOD as u64) as usize;
    &PATTERN[start..start + length.min(CHUNK)]
}

/// Bytes as a reader wants to see them: quoted and escaped, and with their
/// number when they are cut.
///
/// ```
/// use grade::bytes::show;
/// assert_eq!(show(b"hi\n"), r#""hi\n""#);
/// assert_eq!(show(b""), "nothing");
/// ```
#[must_use]
pub fn show(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        "nothing".to_string()
    } else if bytes.len() <= SHOWN {
        format!("\"{}\"", bytes.escape_ascii())
    } else {
        let (head, size) = (bytes[..SHOWN].escape_ascii(), count(bytes.len() as u64));
        format!("\"{head}\"... ({size} bytes)")
    }
}

/// The offset of the first byte in which two runs of bytes differ, or where
/// the shorter one ends; `None` when they are equal.
#[must_use]
pub fn first_difference(left: &[u8], right: &[u8]) -> Option<usize> {
    let differing = left.iter().zip(right).position(|(a, b)| a != b);
    let shorter = left.len().min(right.len());
    differing.or((left.len() != right.len()).then_some(shorter))
}

/// The neighbourhood of the byte at `offset`, for a message about it.
#[must_use]
pub fn around(bytes: &[u8], offset: usize) -> String {
    let start = offset.saturating_sub(SHOWN / 4).min(bytes.len());
    let end = (offset + SHOWN / 2).min(bytes.len());
    let before = if start > 0 { "..." } else { "" };
    let after = if end < bytes.len() { "..." } else { "" };
    format!("{before}\"{}\"{after}", bytes[start..end].escape_ascii())
}

/// A number with its thousands separated: `2391` becomes `2,391`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number of bytes in the largest binary unit that divides it: `65536`
/// becomes `64 KiB`, `5000` stays `5,000 bytes`.
#[must_use]
pub fn size(bytes: u64) -> String {
    match bytes {
        1 => "1 byte".to_string(),
        n if n >= 1 << 20 && n.is_multiple_of(1 << 20) => format!("{} MiB", count(n >> 20)),
        n if n >= 1 << 10 && n.is_multiple_of(1 << 10) => format!("{} KiB", count(n >> 10)),
        n => format!("{} bytes", count(n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_differs_from_itself_moved_by_any_usual_block() {
        for moved in [1, 1024, 4096, 8192, 65_536] {
            assert_ne!(pattern(0, 64), pattern(moved, 64), "moved by {moved}");
        }
    }

    #[test]
    fn the_pattern_goes_on_over_the_end_of_its_period() {
        let end = PERIOD as u64 - 3;
        assert_eq!(&pattern(end, 10)[3..], pattern(0, 7));
        assert_eq!(pattern(PERIOD as u64 - 1, CHUNK).len(), CHUNK);
    }

    #[test]
    fn a_difference_is_the_first_differing_byte_or_the_shorter_end() {
        assert_eq!(first_difference(b"same", b"same"), None);
        assert_eq!(first_difference(b"same", b"sage"), Some(2));
        assert_eq!(first_difference(b"sam", b"same"), Some(3));
        assert_eq!(first_difference(b"", b"x"), Some(0));
    }

    #[test]
    fn long_bytes_are_cut_around_what_matters() {
        let mut bytes = vec![b'a'; 10_000];
        bytes[5_000] = b'X';
        let shown = around(&bytes, 5_000);
        assert!(shown.contains('X') && shown.len() < 60, "{shown}");
        assert!(
            shown.starts_with("...") && shown.ends_with("..."),
            "{shown}"
        );
        assert_eq!(around(b"short", 4), "\"short\"");
        assert!(show(&bytes).ends_with("(10,000 bytes)"));
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(count(7), "7");
        assert_eq!(count(999), "999");
        assert_eq!(count(23_955), "23,955");
        assert_eq!(count(1_048_576), "1,048,576");
        assert_eq!(size(4 << 20), "4 MiB");
        assert_eq!(size(4095), "4,095 bytes");
    }
}
