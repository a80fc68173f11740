//! How two descriptions of runs differ, and one made from another by a list of
//! changes. Pure. A change names its place by the words of the description as
//! it is stored; it never decides whether the result is a good one.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::RunSpec;

/// One place in which a description is another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The place, from the outside in.
    pub path: Vec<String>,
    /// What stood there; `None`: nothing.
    #[serde(default)]
    pub from: Option<Value>,
    /// What stands there now; `None`: nothing.
    #[serde(default)]
    pub to: Option<Value>,
}

/// Why changes cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The place lies in something that has no places.
    #[error("`{0}` is no setting of a run")]
    Nowhere(String),
    /// The result is no description.
    #[error("with these changes it describes no run: {0}")]
    Unfit(String),
}

/// Everything in which `new` differs from `old`, in the order of the places.
/// Lists are compared as a whole.
#[must_use]
pub fn difference(old: &RunSpec, new: &RunSpec) -> Vec<Change> {
    let (old, new) = (tree(old), tree(new));
    let mut changes = Vec::new();
    compare(&mut Vec::new(), Some(&old), Some(&new), &mut changes);
    changes
}

/// The description with the changes made in it; what they say stood there
/// before is not looked at.
///
/// # Errors
/// Where a place cannot be, or the result is no description.
pub fn apply(spec: &RunSpec, changes: &[Change]) -> Result<RunSpec, ChangeError> {
    let mut whole = tree(spec);
    for change in changes {
        set(&mut whole, &change.path, change.to.clone())
            .ok_or_else(|| ChangeError::Nowhere(change.path.join(".")))?;
    }
    serde_json::from_value(whole).map_err(|error| ChangeError::Unfit(error.to_string()))
}

fn tree(spec: &RunSpec) -> Value {
    serde_json::to_value(spec).unwrap_or_default()
}

fn compare(path: &mut Vec<String>, old: Option<&Value>, new: Option<&Value>, into: &mut Vec<Change>) {
    // What an older version does not know is left out where it is the usual:
    // a whole part that is missing is compared inside, too.
    let empty = Map::new();
    let parts = match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => Some((old, new)),
        (None, Some(Value::Object(new))) => Some((&empty, new)),
        (Some(Value::Object(old)), None) => Some((old, &empty)),
        _ => None,
    };
    let Some((old_parts, new_parts)) = parts else {
        let differ = old.filter(|v| !v.is_null()) != new.filter(|v| !v.is_null());
        if differ {
            into.push(Change { path: path.clone(), from: old.cloned(), to: new.cloned() });
        }
        return;
    };
    let mut names: Vec<&String> = old_parts.keys().chain(new_parts.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        path.push(name.clone());
        compare(path, old_parts.get(name), new_parts.get(name), into);
        path.pop();
    }
}

fn set(whole: &mut Value, path: &[String], to: Option<Value>) -> Option<()> {
    let (last, above) = path.split_last()?;
    let mut at = whole;
    for word in above {
        let parts = at.as_object_mut()?;
        at = parts.entry(word.clone()).or_insert_with(|| Value::Object(Map::new()));
    }
    let parts = at.as_object_mut()?;
    match to {
        Some(value) => parts.insert(last.clone(), value),
        None => parts.remove(last),
    };
    Some(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(more: &Value) -> RunSpec {
        let mut whole = json!({"project": "p", "name": "r", "command": ["x"], "provider": "local"});
        for (key, value) in more.as_object().unwrap() {
            whole[key] = value.clone();
        }
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn what_differs_is_told_and_applied_gives_the_other_one() {
        let old = spec(&json!({"env": {"LR": "0.1", "SEED": "1"}, "pty": true}));
        let new = spec(&json!({
            "env": {"LR": "0.01", "WARM": "5"}, "command": ["x", "-v"], "max_usd": 3.0,
            "limits": {"pids": 40}, "health": {"hang": {"action": "move"}},
        }));
        let changes = difference(&old, &new);
        let places: Vec<String> = changes.iter().map(|c| c.path.join(".")).collect();
        for place in ["command", "env.LR", "env.SEED", "env.WARM", "limits.pids", "max_usd", "pty"] {
            assert!(places.contains(&place.to_owned()), "{place} in {places:?}");
        }
        assert!(places.iter().any(|p| p == "health.hang.action"), "{places:?}");
        assert_eq!(apply(&old, &changes).unwrap(), new);
        assert_eq!(apply(&new, &difference(&new, &old)).unwrap(), old, "and back to what is usual");
        assert_eq!(difference(&old, &old), []);
    }

    #[test]
    fn what_describes_no_run_is_refused() {
        let change = |path: &[&str], to: Value| Change {
            path: path.iter().map(|word| (*word).to_owned()).collect(),
            from: None,
            to: Some(to),
        };
        let base = spec(&json!({}));
        let nowhere = apply(&base, &[change(&["command", "first"], json!(1))]).unwrap_err();
        assert_eq!(nowhere, ChangeError::Nowhere("command.first".into()));
        assert!(apply(&base, &[change(&[], json!(1))]).is_err());
        assert!(matches!(apply(&base, &[change(&["command"], json!(7))]), Err(ChangeError::Unfit(_))));
        let gone = Change { path: vec!["command".into()], from: None, to: None };
        assert!(apply(&base, &[gone]).is_err(), "without a command");
    }
}
