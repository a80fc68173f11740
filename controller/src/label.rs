//! The label on everything made at a provider:
//! `outlast:<hub, 8>/<machine, 26>/<MAC, 13>`. The MAC is a truncated keyed
//! BLAKE3 of hub and machine, so that nobody else's instance can look ours.

use lifecycle::{HubId, MachineId};

/// The part that the labels of every installation share.
pub const EVERYBODY: &str = "outlast:";

/// The installation that a label names; whoever wrote it may have lied.
#[must_use]
pub fn installation(label: &str) -> Option<&str> {
    let (hub, _) = label.strip_prefix(EVERYBODY)?.split_once('/')?;
    Some(hub)
        .filter(|hub| hub.len() == 8 && hub.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

/// The part that all labels of this hub share.
#[must_use]
pub fn prefix(hub: HubId) -> String {
    format!("outlast:{}/", &hub.to_string()[..8])
}

fn mac(hub: HubId, machine: MachineId, key: &[u8; 32]) -> String {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(hub.as_bytes()).update(machine.as_bytes());
    data_encoding::BASE32_NOPAD.encode(&hasher.finalize().as_bytes()[..8]).to_lowercase()
}

/// The label of one machine; 57 characters.
#[must_use]
pub fn write(hub: HubId, machine: MachineId, key: &[u8; 32]) -> String {
    format!("{}{machine}/{}", prefix(hub), mac(hub, machine, key))
}

/// The machine that a label names, if this hub wrote it.
#[must_use]
pub fn read(label: &str, hub: HubId, key: &[u8; 32]) -> Option<MachineId> {
    let (id, _) = label.strip_prefix(&prefix(hub))?.split_once('/')?;
    let machine = id.parse().ok()?;
    (write(hub, machine, key) == label).then_some(machine)
}

/// Whether this hub wrote it.
#[must_use]
pub fn is_ours(label: &str, hub: HubId, key: &[u8; 32]) -> bool {
    read(label, hub, key).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i27_only_this_hubs_labels_are_ours() {
        let (hub, other) = (HubId::from_bytes([1; 16]), HubId::from_bytes([2; 16]));
        let machine = MachineId::from_bytes([3; 16]);
        let label = write(hub, machine, &[9; 32]);
        assert_eq!(label.len(), 57);
        assert_eq!(read(&label, hub, &[9; 32]), Some(machine));
        assert_eq!(read(&label, other, &[9; 32]), None);
        assert_eq!(read(&label, hub, &[8; 32]), None);
        assert_eq!(read(&label[..56], hub, &[9; 32]), None);
        assert_eq!(read("outlast:", hub, &[9; 32]), None);
        assert_eq!(installation(&label), Some(&hub.to_string()[..8]));
        assert!(label.starts_with(EVERYBODY));
        for none in ["outlast:", "outlast:abc/x", "x", "outlast:abcd\u{1b}fgh/x"] {
            assert_eq!(installation(none), None, "{none}");
        }
    }
}
