//! Reads the parts of a manifest that may have any shape, or any number of entries, up to a limit. Two bytes of JSON
//! become dozens in memory, so the length of the file alone is no bound.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The most values; a long text counts as several.
const VALUES: usize = 50_000;
/// How many bytes of text count as one value.
const TEXT: usize = 64;
/// The most files, or reasons, by role: a manifest has a handful.
const ENTRIES: usize = 1_000;
/// The most things that were left out, and warnings: a manifest has some hundreds at most.
pub const ITEMS: usize = 5_000;
/// The most tables of a database.
const TABLES: usize = 2_000_000;
/// The most stores of a run: a manifest has a handful.
const STORES: usize = 100;

/// A map of few entries.
pub fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error> {
    struct Few<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
        type Value = BTreeMap<String, T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut few = BTreeMap::new();
            while let Some((name, value)) = entries.next_entry()? {
                few.insert(name, value);
                if few.len() > ENTRIES {
                    return Err(A::Error::custom(format_args!("a map has more than {ENTRIES} entries")));
                }
            }
            Ok(few)
        }
    }
    deserializer.deserialize_map(Few(PhantomData))
}

/// The stores of a run.
pub fn stores<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    bounded_list(deserializer, STORES)
}

/// The files with data: at most as many as files.
pub fn files<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    bounded_list(deserializer, ENTRIES)
}

/// A list with an entry for each table.
pub fn tables<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    bounded_list(deserializer, TABLES)
}

/// A list of few entries.
pub fn items<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    bounded_list(deserializer, ITEMS)
}

/// The same for a list that may be missing.
pub fn known_items<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    items(deserializer).map(Some)
}

/// A map of few texts that may be missing.
pub fn known_settings<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    few(deserializer).map(Some)
}

/// A list of at most so many numbers.
pub fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    bounded_list(deserializer, VALUES)
}

fn bounded_list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
    most: usize,
) -> Result<Vec<T>, D::Error> {
    struct List<T>(usize, PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(entry) = entries.next_element()? {
                list.push(entry);
                if list.len() > self.0 {
                    return Err(A::Error::custom(format_args!(
                        "a list has more than {} entries",
                        self.0
                    )));
                }
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(List(most, PhantomData))
}

/// A map of values of any shape.
pub fn map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Value>, D::Error> {
    match value(deserializer)? {
        Value::Object(entries) => Ok(entries.into_iter().collect()),
        _ => Err(D::Error::custom("expected a map")),
    }
}

/// A value of any shape, or `null`.
pub fn option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    value(deserializer).map(|value| Some(value).filter(|value| !value.is_null()))
}

fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    let left = Cell::new(VALUES);
    Any { left: &left }.deserialize(deserializer)
}

#[derive(Clone, Copy)]
struct Any<'a> {
    left: &'a Cell<usize>,
}

impl Any<'_> {
    fn take<E: Error>(self, text: usize) -> Result<(), E> {
        let left = self.left.get().checked_sub(1 + text / TEXT);
        let left = left.ok_or_else(|| E::custom("it holds more than any manifest does"))?;
        self.left.set(left);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Any<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.take(0).map(|()| Value::Null)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Value, E> {
        self.take(0).map(|()| Value::Bool(truth))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        self.take(0).map(|()| number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        self.take(0).map(|()| number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        self.take(0)
            .map(|()| Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.take(text.len()).map(|()| text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.take(0)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.take(0)?;
        let mut map = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            self.take(name.len())?;
            map.insert(name, entries.next_value_seed(self)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder {
        #[serde(default, deserialize_with = "map")]
        any: BTreeMap<String, Value>,
        #[serde(default, deserialize_with = "few")]
        few: BTreeMap<String, u64>,
        #[serde(default, deserialize_with = "list")]
        list: Vec<u64>,
    }

    fn read(text: &str) -> Result<Holder, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn what_a_manifest_may_hold_comes_back_as_it_was() {
        let value = json!({"rate": 1.5, "bytes": 7, "host": "vm", "deep": [null, -1, {"a": true}]});
        let holder = read(&json!({"any": value, "few": {"a": 1}, "list": [5, 0]}).to_string()).unwrap();
        assert_eq!(holder.list, [5, 0]);
        assert_eq!(serde_json::to_value(holder.any).unwrap(), value);
        assert_eq!(holder.few["a"], 1);
    }

    #[test]
    fn what_would_fill_the_memory_is_refused_while_it_is_read() {
        let many = format!("{{\"any\": {{\"a\": [{}0]}}}}", "0,".repeat(1_000_000));
        assert!(read(&many).unwrap_err().to_string().contains("holds more"));
        let long = format!("{{\"any\": {{\"a\": \"{}\"}}}}", "x".repeat(10_000_000));
        assert!(read(&long).unwrap_err().to_string().contains("holds more"));
        let numbers = format!("{{\"list\": [{}0]}}", "0,".repeat(1_000_000));
        assert!(read(&numbers).unwrap_err().to_string().contains("a list has more"));
        let deep = format!("{{\"any\": {{\"a\": {}", "[".repeat(100_000));
        read(&deep).unwrap_err();
        let entries: Vec<String> = (0..2_000).map(|number| format!("\"{number}\": 1")).collect();
        let wide = format!("{{\"few\": {{{}}}}}", entries.join(","));
        assert!(read(&wide).unwrap_err().to_string().contains("more than 1000 entries"));
    }
}
