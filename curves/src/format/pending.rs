//! Bytes that came and of which no whole piece was made yet: looked at again
//! with those that follow. Nothing is copied while each piece comes whole.

/// Has `walk` look at what waits and at what came, and keeps what it did not
/// use; it says how many bytes it used.
pub(super) fn gather(waits: &mut Vec<u8>, came: &[u8], walk: impl FnOnce(&[u8]) -> usize) {
    if waits.is_empty() {
        let used = walk(came);
        waits.extend_from_slice(&came[used..]);
    } else {
        waits.extend_from_slice(came);
        let used = walk(waits);
        waits.drain(..used);
    }
}
