//! Public SSH keys: of the account, which new instances get, and of one
//! instance.

use serde_json::{Value, json};

use super::state::{SshKey, World};
use super::time::tell;
use super::wire::{Request, Response, good, no_such_instance, refuse};

/// Keys of an account or an instance at most.
const MOST: usize = 256;

/// The key of a body, if it looks like one.
fn read(request: &Request) -> Result<String, Response> {
    let body = request.object()?;
    let key = body.get("ssh_key").and_then(Value::as_str).unwrap_or_default().trim();
    let kinds = ["ssh-ed25519 ", "ssh-rsa ", "ecdsa-sha2-", "sk-"];
    if key.len() > 16_384 || !kinds.iter().any(|kind| key.starts_with(kind)) {
        return Err(refuse(400, "no_ssh_key", "No ssh key provided"));
    }
    Ok(key.to_owned())
}

fn shown(key: &SshKey) -> Value {
    json!({"id": key.id, "user_id": 1, "key": key.public_key, "public_key": key.public_key,
        "created_at": "2026-01-01T00:00:00Z", "deleted_at": null})
}

/// `GET /ssh/`: an array, not an object.
pub(super) fn list(world: &World) -> Response {
    Response::json(200, &world.ssh_keys.iter().map(shown).collect())
}

/// `POST /ssh/`. The same key twice is one key.
pub(super) fn create(world: &mut World, request: &Request) -> Response {
    let public_key = match read(request) {
        Ok(key) => key,
        Err(refused) => return refused,
    };
    if let Some(known) = world.ssh_keys.iter().find(|key| key.public_key == public_key) {
        return good(json!({"key": shown(known)}));
    }
    if world.ssh_keys.len() == MOST {
        return refuse(400, "invalid_args", "too many ssh keys");
    }
    let key = SshKey { id: world.new_id(), public_key };
    let answer = good(json!({"key": shown(&key)}));
    world.ssh_keys.push(key);
    answer
}

/// `PUT /ssh/{id}/`.
pub(super) fn update(world: &mut World, id: u64, request: &Request) -> Response {
    let public_key = match read(request) {
        Ok(key) => key,
        Err(refused) => return refused,
    };
    match world.ssh_keys.iter_mut().find(|key| key.id == id) {
        None => refuse(404, "no_such_ssh_key", "No such ssh key."),
        Some(key) => {
            key.public_key = public_key;
            good(json!({"key": shown(key)}))
        }
    }
}

/// `DELETE /ssh/{id}/`. Instances keep theirs.
pub(super) fn delete(world: &mut World, id: u64) -> Response {
    let before = world.ssh_keys.len();
    world.ssh_keys.retain(|key| key.id != id);
    if world.ssh_keys.len() == before {
        return refuse(400, "no_ssh_key", "No ssh key provided");
    }
    good(json!({}))
}

/// `POST /instances/{id}/ssh/`.
pub(super) fn attach(world: &mut World, id: u64, request: &Request) -> Response {
    let public_key = match read(request) {
        Ok(key) => key,
        Err(refused) => return refused,
    };
    let key = SshKey { id: world.new_id(), public_key };
    if world.visible(id).is_none() {
        return no_such_instance(id);
    }
    let Some(instance) = world.live.get_mut(&id) else { return no_such_instance(id) };
    if instance.keys.len() == MOST {
        return refuse(400, "invalid_args", "too many ssh keys");
    }
    if !instance.keys.iter().any(|known| known.public_key == key.public_key) {
        instance.keys.push(key);
        tell(world, id, "keys");
    }
    good(json!({"msg": "SSH key added to instance."}))
}

/// `DELETE /instances/{id}/ssh/{key}/`.
pub(super) fn detach(world: &mut World, id: u64, key: u64) -> Response {
    let Some(instance) = world.live.get_mut(&id) else { return no_such_instance(id) };
    let before = instance.keys.len();
    instance.keys.retain(|known| known.id != key);
    if instance.keys.len() == before {
        return refuse(404, "no_such_ssh_key", "SSH key not found.");
    }
    tell(world, id, "keys");
    good(json!({"msg": "SSH key removed from instance."}))
}
