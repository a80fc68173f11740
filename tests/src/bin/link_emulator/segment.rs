//! What the link reads of TCP segments over IPv4, and the resets that it makes.
//! What it cannot read is no segment, never an error.

/// An address and a port.
pub(crate) type End = ([u8; 4], u16);

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// One TCP segment over IPv4, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) from: End,
    pub(crate) to: End,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    /// Sequence numbers it uses up.
    pub(crate) length: u32,
}

pub(crate) fn segment(packet: &[u8]) -> Option<Segment> {
    let header = usize::from(packet.first()? & 15) * 4;
    if packet[0] >> 4 != 4 || *packet.get(9)? != 6 {
        return None;
    }
    let tcp = packet.get(header..)?;
    let offset = usize::from(*tcp.get(12)? >> 4) * 4;
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let word = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
    let port = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
    let flags = *tcp.get(13)?;
    let data = u32::try_from(total.saturating_sub(header + offset)).ok()?;
    let length = data + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    let address = |at: usize| packet.get(at..at + 4)?.try_into().ok();
    let (from, to) = ((address(12)?, port(0)?), (address(16)?, port(2)?));
    Some(Segment { from, to, seq: word(4)?, ack: word(8)?, flags, length })
}

pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// A reset that the receiver takes for the other end's (RFC 9293, 3.5.2).
pub(crate) fn reset(from: End, to: End, seq: u32, ack: u32, flags: u8) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    ip.extend(from.0);
    ip.extend(to.0);
    let sum = checksum(&[&ip]).to_be_bytes();
    ip[10..12].copy_from_slice(&sum);
    let mut tcp = Vec::with_capacity(20);
    tcp.extend(from.1.to_be_bytes());
    tcp.extend(to.1.to_be_bytes());
    tcp.extend(seq.to_be_bytes());
    tcp.extend(ack.to_be_bytes());
    tcp.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    let sum = checksum(&[&from.0, &to.0, &[0, 6, 0, 20], &tcp]).to_be_bytes();
    tcp[16..18].copy_from_slice(&sum);
    ip.extend(tcp);
    ip
}
