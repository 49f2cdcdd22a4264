//! Options of a verb from a TOML file, as if they stood on the command line.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, bail};

/// The option that names the file.
const OPTION: &str = "--config";
/// The verb that takes it in this way.
const VERB: &str = "serve";

/// Returns the words of a command line with those of the file that `--config` names, less the options that the command
/// line gives itself.
///
/// # Errors
/// If the file cannot be read or holds something else than options.
pub(crate) fn with_file(words: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    let texts: Vec<&str> = words
        .iter()
        .map(|word| word.to_str().unwrap_or_default())
        .collect();
    let Some(verb) = texts.iter().skip(1).position(|word| !word.starts_with('-')) else {
        return Ok(words);
    };
    let verb = verb + 1;
    if texts[verb] != VERB {
        return Ok(words);
    }
    let Some(place) = texts.iter().position(|word| is_option(word, OPTION)) else {
        return Ok(words);
    };
    let named = texts[place]
        .split_once('=')
        .map(|(_, name)| name.to_owned());
    let file = named.or_else(|| texts.get(place + 1).map(|&name| name.to_owned()));
    // Without a name the usual message says what is missing.
    let Some(file) = file else {
        return Ok(words);
    };
    let options = read(Path::new(&file)).with_context(|| format!("{OPTION} {file}"))?;
    let given = |option: &str| texts.iter().any(|word| is_option(word, option));
    let added: Vec<OsString> = options
        .into_iter()
        .filter(|(option, _)| !given(option))
        .map(|(option, value)| match value {
            Some(value) => OsString::from(format!("{option}={value}")),
            None => OsString::from(option),
        })
        .collect();
    let mut all = words;
    let rest = all.split_off(verb + 1);
    all.extend(added);
    all.extend(rest);
    Ok(all)
}

fn is_option(word: &str, option: &str) -> bool {
    let short = (option == "--archive").then_some("-d");
    word.split('=').next() == Some(option) || short.is_some_and(|short| word.starts_with(short))
}

/// Reads options: a text, a number, `true` or `false`, or a list of texts and numbers each.
fn read(file: &Path) -> anyhow::Result<Vec<(String, Option<String>)>> {
    let text = std::fs::read_to_string(file)?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        anyhow::anyhow!("line {line}: {}", error.message())
    })?;
    let mut options = Vec::new();
    for (name, value) in table {
        let option = format!("--{}", name.replace('_', "-"));
        if option == OPTION {
            bail!("{name}: a file of options names no other");
        }
        match value {
            toml::Value::Boolean(true) => options.push((option, None)),
            toml::Value::Boolean(false) => {}
            toml::Value::Array(all) => {
                for value in &all {
                    options.push((option.clone(), Some(plain(&name, value)?)));
                }
            }
            value => options.push((option, Some(plain(&name, &value)?))),
        }
    }
    Ok(options)
}

fn plain(name: &str, value: &toml::Value) -> anyhow::Result<String> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        _ => bail!("{name}: a text, a number, true, false, or a list of them is wanted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(toml: &str, words: &[&str]) -> anyhow::Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("serve.toml");
        std::fs::write(&file, toml).unwrap();
        let name = file.display().to_string();
        let words = words
            .iter()
            .map(|word| OsString::from(word.replace("FILE", &name)));
        let all = with_file(words.collect())?;
        let texts = all
            .into_iter()
            .map(|word| word.into_string().unwrap().replace(&name, "FILE"));
        Ok(texts.collect())
    }

    #[test]
    fn options_of_a_file_stand_where_the_command_line_has_none() {
        let toml = "listen = \"127.0.0.1:1\"\narchive = [\"a.m3i\", \"b.m3i\"]\nmax_upload = 5\nexact = true\nquiet = false\n";
        let all = expanded(
            toml,
            &["m3ret", "serve", "--config", "FILE", "--listen=[::1]:2"],
        );
        let wanted = [
            "m3ret",
            "serve",
            "--archive=a.m3i",
            "--archive=b.m3i",
            "--exact",
            "--max-upload=5",
            "--config",
            "FILE",
            "--listen=[::1]:2",
        ];
        assert_eq!(all.unwrap(), wanted);
        let own = expanded(
            toml,
            &["m3ret", "-q", "serve", "-d", "c.m3i", "--config=FILE"],
        )
        .unwrap();
        assert!(
            own.iter().all(|word| !word.starts_with("--archive")),
            "{own:?}"
        );
        assert_eq!(own[2..4], ["serve", "--exact"]);
    }

    #[test]
    fn other_verbs_and_files_of_another_form_are_left_or_refused() {
        let words = ["m3ret", "pretrain", "--config", "FILE"];
        assert_eq!(expanded("x = 1", &words).unwrap(), words);
        for toml in [
            "listen = ",
            "a = { b = 1 }",
            "config = \"x\"",
            "a = [[1]]",
            "a = 1979-05-27",
        ] {
            assert!(
                expanded(toml, &["m3ret", "serve", "--config", "FILE"]).is_err(),
                "{toml}"
            );
        }
        assert!(
            with_file(vec![
                "m3ret".into(),
                "serve".into(),
                "--config".into(),
                "/no/file".into()
            ])
            .is_err()
        );
        assert_eq!(
            expanded("", &["m3ret", "serve", "--config"]).unwrap(),
            ["m3ret", "serve", "--config"]
        );
    }
}
