//! The one schema, made from the raw types, and the questions the walk asks it.
//!
//! TOML has no null, so every trace of `Option` is taken out of what schemars makes. Invariant: what is left is a
//! JSON Schema (2020-12) an editor understands; weir's own keywords start with `x-weir-`, its formats with `weir-`.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::raw::RawConfig;

/// Marks a key, or one value of a key, whose function is not built yet.
const NOT_YET: &str = "x-weir-not-yet";

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut schema = schemars::schema_for!(RawConfig).to_value();
    without_null(&mut schema);
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".into(), "weir.toml".into());
    }
    schema
});

/// The JSON Schema of the configuration file, for editors and `weir schema`.
pub fn schema() -> Value {
    SCHEMA.clone()
}

fn without_null(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(map) => {
            map.values_mut().for_each(without_null);
            drop_null_type(map);
            drop_null_alternative(map);
            map.retain(|_, v| !v.is_null());
        }
        _ => {}
    }
}

fn drop_null_type(map: &mut Map<String, Value>) {
    let Some(Value::Array(types)) = map.get_mut("type") else { return };
    types.retain(|t| t != "null");
    if let [only] = types.as_slice() {
        let only = only.clone();
        map.insert("type".into(), only);
    }
}

fn drop_null_alternative(map: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = map.get_mut("anyOf") else { return };
    choices.retain(|c| c.get("type").is_none_or(|t| t != "null"));
    if let [Value::Object(only)] = choices.as_slice() {
        let only = only.clone();
        map.shift_remove("anyOf");
        for (key, value) in only {
            map.entry(key).or_insert(value);
        }
    }
}

/// A place in the schema.
#[derive(Clone, Copy, Debug)]
pub struct Shape(&'static Value);

impl Shape {
    /// The whole file.
    pub fn root() -> Self {
        Self(&SCHEMA)
    }

    /// A keyword beside or behind a `$ref`.
    fn keyword(self, name: &str) -> Option<&'static Value> {
        self.0.get(name).or_else(|| self.target()?.keyword(name))
    }

    fn target(self) -> Option<Self> {
        let pointer = self.0.get("$ref")?.as_str()?.strip_prefix('#')?;
        SCHEMA.pointer(pointer).map(Self)
    }

    pub fn is_not_yet(self) -> bool {
        self.0.get(NOT_YET).is_some()
    }

    /// The alternatives, each without further ones; itself if it has none.
    pub fn choices(self) -> Vec<Self> {
        match self.keyword("anyOf").or_else(|| self.keyword("oneOf")).and_then(Value::as_array) {
            Some(choices) => choices.iter().flat_map(|c| Self(c).choices()).collect(),
            None => vec![self],
        }
    }

    /// JSON type names; empty = anything.
    pub fn types(self) -> Vec<&'static str> {
        match self.keyword("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    pub fn format(self) -> Option<&'static str> {
        self.keyword("format")?.as_str()
    }

    /// What the key allows, with the schema of each.
    pub fn property(self, key: &str) -> Option<Self> {
        let named = self.keyword("properties").and_then(|p| p.get(key)).map(Self);
        named.or_else(|| self.keyword("additionalProperties").filter(|a| a.is_object()).map(Self))
    }

    /// Names of the keys, in the order of the raw type; empty for tables with free names.
    pub fn keys(self) -> Vec<&'static str> {
        let properties = self.keyword("properties").and_then(Value::as_object);
        properties.map(|p| p.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    pub fn required(self) -> Vec<&'static str> {
        let keys = self.keyword("required").and_then(Value::as_array);
        keys.map(|k| k.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
    }

    pub fn items(self) -> Option<Self> {
        self.keyword("items").map(Self)
    }

    /// The texts a string may be; empty = any.
    pub fn words(self) -> Vec<&'static str> {
        let listed = self.keyword("enum").and_then(Value::as_array);
        let one = self.keyword("const").and_then(Value::as_str);
        listed.into_iter().flatten().filter_map(Value::as_str).chain(one).collect()
    }

    pub fn minimum(self) -> Option<f64> {
        self.keyword("minimum")?.as_f64()
    }

    pub fn maximum(self) -> Option<f64> {
        self.keyword("maximum")?.as_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &[&str]) -> Shape {
        path.iter().fold(Shape::root(), |shape, key| shape.property(key).unwrap_or_else(|| panic!("no {key}")))
    }

    #[test]
    fn keys_stand_in_the_order_of_the_reference() {
        let version = at(&["splits", "shop", "versions", "v1"]);
        assert_eq!(version.keys(), ["weight", "endpoints", "dns_refresh", "protocol", "host", "tls", "health"]);
        assert_eq!(at(&["splits", "shop"]).required(), ["versions"]);
        assert_eq!(at(&["listeners", "web"]).required(), ["bind"]);
    }

    #[test]
    fn defaults_are_in_the_schema() {
        for (path, default) in [
            (&["defaults", "timeouts", "connect"][..], "1s"),
            (&["splits", "shop", "timeouts", "first_byte"], "30s"),
            (&["listeners", "web", "limits", "header_bytes"], "32KiB"),
            (&["admin", "bind"], "127.0.0.1:9901"),
            (&["shutdown", "timeout"], "25s"),
        ] {
            assert_eq!(at(path).keyword("default").and_then(Value::as_str), Some(default), "{path:?}");
        }
    }

    #[test]
    fn nothing_in_the_schema_is_null() {
        fn visit(value: &Value, path: &str) {
            assert!(!value.is_null() && value != "null", "null at {path}");
            match value {
                Value::Object(map) => map.iter().for_each(|(k, v)| visit(v, &format!("{path}/{k}"))),
                Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| visit(v, &format!("{path}/{i}"))),
                _ => {}
            }
        }
        visit(&schema(), "");
    }
}
