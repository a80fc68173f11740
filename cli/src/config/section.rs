//! What a section of the configuration is to the loader: names, a setter and a
//! way to show itself. A section neither knows which source spoke nor in which
//! order: the loader applies the sources, lowest first.

use serde_json::Value as Json;

use super::field::Field;

/// One `[section]`.
pub(super) trait Section {
    /// Its keys, in the order in which they are shown.
    fn keys(&self) -> &'static [&'static str];

    /// Whether names below it are the user's own; it has no others then.
    fn takes_any_key(&self) -> bool {
        false
    }

    /// Sets one of [`Section::keys`], or says what is wrong with the value.
    fn set(&mut self, key: &str, field: &mut Field<'_>);

    /// The value of one of [`Section::keys`]; null where it is not set.
    fn get(&self, key: &str) -> Json;

    /// Every key with its value, in the order in which they are shown.
    fn entries(&self) -> Vec<(String, Json)> {
        self.keys().iter().map(|key| ((*key).to_owned(), self.get(key))).collect()
    }
}
