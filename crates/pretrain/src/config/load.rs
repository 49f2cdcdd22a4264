//! A config file and `--set key=value` -> `Config`.

use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::{Table, Value};

use super::Config;
use crate::error::{Error, Result};
use crate::files::plain_path;

/// The largest config file that is read.
const MAX_BYTES: u64 = 1 << 20;

impl Config {
    /// Reads a config file, changes single keys, and checks the result.
    ///
    /// A change is `key=value`, e.g. `train.batch=32`; a value that is no TOML is taken as text. Paths
    /// in the file are relative to it, paths in changes to the current folder.
    ///
    /// # Errors
    /// `Io` if the file cannot be read, `Toml` if it is no TOML or names an unknown key, `Config` if a
    /// setting makes no sense.
    pub fn load(path: &Path, changes: &[String]) -> Result<Self> {
        let length = std::fs::metadata(path).map_err(Error::io(path))?.len();
        if length > MAX_BYTES {
            return Err(Error::Toml {
                path: path.to_owned(),
                message: format!("found {length} bytes, wanted a config of at most {MAX_BYTES}"),
            });
        }
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::from_toml(&text, folder, changes).map_err(|error| match error {
            Error::Toml { message, .. } => Error::Toml {
                path: path.to_owned(),
                message,
            },
            other => other,
        })
    }

    /// As `load`, from text that lies in `folder`.
    ///
    /// # Errors
    /// As `load`, without `Io`.
    pub fn from_toml(text: &str, folder: &Path, changes: &[String]) -> Result<Self> {
        let wrong = |message: String| Error::Toml {
            path: PathBuf::from("config"),
            message,
        };
        let mut table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| wrong(error.to_string().trim_end().to_owned()))?;
        anchor(&mut table, folder);
        for change in changes {
            set(&mut table, change)?;
        }
        // Those of changes; the others are absolute by now.
        anchor(&mut table, Path::new(""));
        let config = Self::deserialize(table)
            .map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
        config.validate()?;
        Ok(config)
    }

    /// Returns the config as TOML, with every default written out.
    ///
    /// # Errors
    /// `Toml` if a path is no text.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::Toml {
            path: PathBuf::from("config"),
            message: error.to_string(),
        })
    }
}

/// Makes paths absolute, as seen from a folder.
fn anchor(table: &mut Table, folder: &Path) {
    let join = |value: &mut Value| {
        if let Value::String(path) = value {
            // Text in, text out: the folder's name may not be UTF-8, and is left as shown then.
            if !path.is_empty() {
                let joined = folder.join(&*path);
                *path = plain_path(&joined).to_string_lossy().into_owned();
            }
        }
    };
    for key in ["out", "init"] {
        table.get_mut(key).into_iter().for_each(join);
    }
    if let Some(Value::Array(manifests)) = table.get_mut("manifests") {
        manifests.iter_mut().for_each(join);
    }
    let salt = table.get_mut("salt").and_then(Value::as_table_mut);
    if let Some(Value::Array(teachers)) = salt.and_then(|salt| salt.get_mut("teachers")) {
        teachers.iter_mut().for_each(join);
    }
    let images = table.get_mut("images").and_then(Value::as_table_mut);
    if let Some(cache) = images.and_then(|images| images.get_mut("cache")) {
        join(cache);
    }
}

fn set(table: &mut Table, change: &str) -> Result<()> {
    let wrong = |found: &str| Error::config("--set", "key=value, e.g. train.batch=32", found);
    let (key, value) = change.split_once('=').ok_or_else(|| wrong(change))?;
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().unwrap_or_default();
    if last.is_empty() || parts.iter().any(|part| part.is_empty()) {
        return Err(wrong(change));
    }
    let mut place = table;
    for part in parts {
        let entry = place
            .entry(part)
            .or_insert_with(|| Value::Table(Table::new()));
        place = entry
            .as_table_mut()
            .ok_or_else(|| Error::config(key.trim(), "a key below a table", "one below a value"))?;
    }
    place.insert(last.to_owned(), read_value(value.trim()));
    Ok(())
}

/// Reads a TOML value; what is none is text, so that paths need no quotes.
fn read_value(text: &str) -> Value {
    let parsed: std::result::Result<Table, _> = format!("value = {text}").parse();
    parsed
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Method;

    const SHORT: &str = "out = 'run'\nmanifests = ['a.csv']\nmethod = 'mae'\n";

    fn load(text: &str, changes: &[&str]) -> Result<Config> {
        let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
        Config::from_toml(text, Path::new("/some"), &changes)
    }

    #[test]
    fn paths_of_the_file_lie_beside_it_and_those_of_changes_here() {
        let config = load(SHORT, &["manifests=[\"b.csv\"]"]).unwrap();
        assert_eq!(config.out, Path::new("/some/run"));
        let here = std::env::current_dir().unwrap();
        assert_eq!(config.manifests, [here.join("b.csv")]);
        let around = load(SHORT, &["out=/some/x/../run"]).unwrap();
        assert_eq!(around.out, config.out);
    }

    #[test]
    #[allow(clippy::float_cmp, reason = "written and read back")]
    fn changes_reach_every_depth_and_need_no_quotes() {
        let changes = [
            "method=sim_dino",
            "train.batch=8",
            "views.area=[0.5, 1]",
            "out=else where",
            "model.preset=small",
        ];
        let config = load(SHORT, &changes).unwrap();
        assert_eq!(config.method, Method::SimDino);
        assert_eq!(config.train.batch, 8);
        assert_eq!(config.views.area, [0.5, 1.0]);
        assert!(config.out.ends_with("else where"));
        assert_eq!(config.model.preset.as_deref(), Some("small"));
    }

    #[test]
    fn unknown_keys_and_senseless_changes_are_refused_by_name() {
        for (change, part) in [
            ("train.bacth=8", "bacth"),
            ("train.batch", "key=value"),
            ("=3", "key=value"),
            ("seed.x=1", "seed"),
            ("train.batch=0", "train.batch"),
            ("out=", "setting out"),
        ] {
            let text = format!("seed = 1\n{SHORT}");
            let message = load(&text, &[change]).unwrap_err().to_string();
            assert!(message.contains(part), "{change}: {message}");
        }
    }

    /// Lists the keys of a table in full.
    fn keys(prefix: &str, table: &Table) -> Vec<String> {
        let mut keys_of_all = Vec::new();
        for (key, value) in table {
            match value {
                Value::Table(below) => keys_of_all.extend(keys(&format!("{prefix}{key}."), below)),
                _ => keys_of_all.push(format!("{prefix}{key}")),
            }
        }
        keys_of_all
    }

    #[test]
    fn the_document_has_every_setting_and_no_other() {
        let everything = [
            "init=/w",
            "model.preset=tiny",
            "model.patch=[4, 16, 16]",
            "model.stem=conv",
            "model.embed_dim=192",
            "model.depth=12",
            "model.num_heads=3",
            "model.mlp_hidden=768",
            "model.num_registers=0",
            "model.ref_grid=[16, 14, 14]",
            "model.embedding=cls",
            "images.cache=/c",
            "mae.decoder_hidden=768",
            "optimizer.base_lr=1",
            "optimizer.min_lr=0",
            "optimizer.weight_decay=[0, 0]",
            "optimizer.betas=[0.9, 0.9]",
        ];
        let config = load(SHORT, &everything).unwrap();
        let table: Table = config.to_toml().unwrap().parse().unwrap();
        let mut wanted = keys("", &table);
        wanted.sort_unstable();
        let text = include_str!("../../../../docs/pretraining.md");
        let (_, settings) = text.split_once("## Settings").unwrap();
        let rows = settings
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let mut found: Vec<String> = rows.map(|(key, _)| key.to_owned()).collect();
        found.sort_unstable();
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_is_written_out_is_read_back_the_same() {
        let config = load(SHORT, &["init=/w", "optimizer.base_lr=0.001"]).unwrap();
        let again = load(&config.to_toml().unwrap(), &[]).unwrap();
        assert_eq!(config, again);
    }

    /// Replaces a key's value by one that is odd, and keeps the length of arrays.
    fn put_odd(table: &mut Table, key: &str, odd: &Value) {
        let (parents, last) = key.rsplit_once('.').unwrap_or(("", key));
        let parents = parents.split('.').filter(|part| !part.is_empty());
        let place = parents.fold(table, |place, part| {
            place.get_mut(part).and_then(Value::as_table_mut).unwrap()
        });
        match place.get_mut(last).unwrap() {
            Value::Array(values) => values.fill(odd.clone()),
            value => *value = odd.clone(),
        }
    }

    #[test]
    fn no_odd_value_makes_a_config_panic_and_what_is_accepted_survives() {
        use rand::{RngExt as _, SeedableRng as _};
        let everything = [
            "model.patch=[4, 16, 16]",
            "model.embed_dim=192",
            "model.num_heads=3",
            "model.mlp_hidden=768",
            "model.ref_grid=[16, 14, 14]",
            "mae.decoder_hidden=768",
            "optimizer.base_lr=1.0",
            "optimizer.betas=[0.9, 0.9]",
        ];
        let config = load(SHORT, &everything).unwrap();
        let table: Table = config.to_toml().unwrap().parse().unwrap();
        let keys = keys("", &table);
        let integers = [
            0,
            1,
            -1,
            3,
            512,
            1 << 20,
            1 << 31,
            1 << 32,
            1 << 53,
            i64::MAX,
        ];
        let integers = integers.into_iter().map(Value::Integer);
        let floats = [-0.0, 1e-300, 1e300, f64::INFINITY, f64::NAN].map(Value::Float);
        let odd: Vec<Value> = integers.chain(floats).collect();
        let check = |table: &Table| {
            let Ok(config) = Config::from_toml(&table.to_string(), Path::new("/some"), &[]) else {
                return;
            };
            let text = config.to_toml().unwrap();
            let again = Config::from_toml(&text, Path::new("/some"), &[]).unwrap();
            assert_eq!(again, config, "{text}");
        };
        for (key, odd) in keys
            .iter()
            .flat_map(|key| odd.iter().map(move |odd| (key, odd)))
        {
            let mut changed = table.clone();
            put_odd(&mut changed, key, odd);
            check(&changed);
        }
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        for _ in 0..1000 {
            let mut changed = table.clone();
            for _ in 0..random.random_range(2..5) {
                let key = &keys[random.random_range(0..keys.len())];
                put_odd(&mut changed, key, &odd[random.random_range(0..odd.len())]);
            }
            check(&changed);
        }
    }
}
