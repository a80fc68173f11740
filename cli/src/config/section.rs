//! What a section of the configuration is to the loader: names, a setter and a
//! way to show itself. A section neither knows which source spoke nor in which
//! order: the loader applies the sources, lowest first.

use serde_json::Value as Json;

use super::field::Field;

/// One `[section]`.
pub(super) trait Section {
    /// Its keys, in the order in which they are shown.
    fn keys(&self) -> &'static [&'static str];

    /// Sets one of [`Section::keys`], or says what is wrong with the value.
    fn set(&mut self, key: &str, field: &mut Field<'_>);

    /// The value of one of [`Section::keys`]; null where it is not set.
    fn get(&self, key: &str) -> Json;
}
