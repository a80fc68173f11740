//! TensorBoard's event files: records with masked CRC-32C, each an `Event`.
//! Format: `tensorflow/core/lib/io/record_writer.h` and
//! `tensorboard/compat/proto/event.proto`.

use super::message::Message;

/// Writes scalars as TensorBoard's own writer does: `simple_value`, a float of
/// 32 bits.
#[derive(Debug, Clone, Copy)]
pub struct TensorBoardWriter;

impl TensorBoardWriter {
    /// A writer, with what a file begins with: `started` in seconds since 1970.
    pub fn begin(started: f64, out: &mut Vec<u8>) -> Self {
        let mut event = Message::default();
        event.double(1, started).text(3, "brain.Event:2");
        record(&event, out);
        Self
    }

    /// The run goes on from a step on: what stands there already is void.
    pub fn restart(self, step: u64, out: &mut Vec<u8>) {
        let mut start = Message::default();
        start.number(1, 1);
        let mut event = Message::default();
        event.number(2, i64::try_from(step).unwrap_or(i64::MAX)).message(7, &start);
        record(&event, out);
    }

    /// A row of values; a step beyond what TensorBoard can hold is its largest.
    pub fn row(self, step: u64, time: f64, values: &[(&str, f64)], out: &mut Vec<u8>) {
        let mut summary = Message::default();
        for (name, value) in values {
            let mut scalar = Message::default();
            scalar.text(1, name).float(2, *value as f32);
            summary.message(1, &scalar);
        }
        let mut event = Message::default();
        event.double(1, time).number(2, i64::try_from(step).unwrap_or(i64::MAX)).message(5, &summary);
        record(&event, out);
    }
}

fn record(event: &Message, out: &mut Vec<u8>) {
    let length = (event.0.len() as u64).to_le_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&masked(&length));
    out.extend_from_slice(&event.0);
    out.extend_from_slice(&masked(&event.0));
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::TensorBoard;
    use crate::log::{Collected, Reader as _};

    #[test]
    fn what_is_written_is_read_back() {
        let mut bytes = Vec::new();
        let writer = TensorBoardWriter::begin(1.7e9, &mut bytes);
        writer.row(3, 1.7e9 + 1.0, &[("loss", 0.5), ("acc/top 1", f64::NAN)], &mut bytes);
        writer.row(1 << 40, 1.7e9 + 2.0, &[("loss", f64::INFINITY)], &mut bytes);
        let (mut reader, mut log) = (TensorBoard::new(), Collected::default());
        reader.feed(&bytes, &mut log);
        reader.finish(&mut log);
        assert_eq!((reader.counts().corrupt.count, reader.counts().torn.count), (0, 0));
        let loss: Vec<_> = log.column("loss").unwrap().pairs().collect();
        assert_eq!(loss, [(Some(3), 0.5), (Some(1 << 40), f64::INFINITY)]);
        assert!(log.column("acc/top 1").unwrap().values[0].is_nan());
    }
}
