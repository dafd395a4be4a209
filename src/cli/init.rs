//! `weir init`: a first `weir.toml`, with comments, from the versions named on the command line.
//!
//! Invariant: a file that is there is never touched.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::address::{CONFIG_PLACES, explicit};
use super::args::{Common, InitArgs};
use super::exit::{Exit, Failure};
use super::print::Printer;
use crate::model::{SplitName, VersionName, Weight};

/// Writes the file.
pub fn init(common: &Common, printer: Printer, args: &InitArgs) -> Result<(), Failure> {
    let text = file(&args.split, &args.versions)?;
    let path = explicit(common).map_or_else(|| PathBuf::from(CONFIG_PLACES[0]), Path::to_owned);
    let shown = path.display();
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => Failure::new(Exit::Failed, "file-exists", format!("{shown} is there already"))
            .note("it was not touched; -c FILE writes another one"),
        _ => Failure::new(Exit::Failed, "file-unwritable", format!("{shown}: {e}")),
    })?;
    file.write_all(text.as_bytes())
        .map_err(|e| Failure::new(Exit::Failed, "file-unwritable", format!("{shown}: {e}")))?;
    printer.info(&format!("wrote {shown}; next: weir check && weir run\n"));
    Ok(())
}

/// `v1=127.0.0.1:9001@90`
#[derive(Debug, PartialEq)]
struct Version {
    name: VersionName,
    endpoints: Vec<SocketAddr>,
    weight: Option<u32>,
}

impl Version {
    fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |why: String| {
            Failure::usage(format!("`{text}`: {why}")).note("write VERSION=ADDRESS@WEIGHT, e.g. v1=127.0.0.1:9001@90")
        };
        let (name, rest) = text.split_once('=').ok_or_else(|| wrong("the `=` is missing".to_owned()))?;
        let (addresses, weight) = rest.rsplit_once('@').map_or((rest, None), |(a, w)| (a, Some(w)));
        let weight = weight.map(|w| w.parse().ok().and_then(|w| Weight::new(w).ok()).ok_or(w)).transpose();
        let weight =
            weight.map_err(|w| wrong(format!("`{w}` is no weight; it is a whole number from 0 to 1000000")))?;
        let endpoint = |a: &str| {
            let usable = a.parse().ok().filter(|a: &SocketAddr| a.port() > 0);
            usable.ok_or_else(|| wrong(format!("`{a}` is not an IP address with a port, as 127.0.0.1:9001")))
        };
        Ok(Self {
            name: VersionName::new(name).map_err(|e| wrong(format!("`{name}` is no name: {e}")))?,
            endpoints: addresses.split(',').map(endpoint).collect::<Result<_, _>>()?,
            weight: weight.map(Weight::value),
        })
    }

    fn line(&self, weight: u32) -> String {
        let endpoints: Vec<_> = self.endpoints.iter().map(|e| format!("\"{e}\"")).collect();
        format!("{} = {{ weight = {weight}, endpoints = [{}] }}\n", key(self.name.as_str()), endpoints.join(", "))
    }
}

fn file(split: &str, versions: &[String]) -> Result<String, Failure> {
    let name = SplitName::new(split).map_err(|e| Failure::usage(format!("`{split}` is no name for a split: {e}")))?;
    let versions = versions.iter().map(|v| Version::parse(v)).collect::<Result<Vec<_>, _>>()?;
    if let Some(twice) = versions.iter().enumerate().find_map(|(i, v)| versions[..i].iter().find(|w| w.name == v.name))
    {
        return Err(Failure::usage(format!("version `{}` is named twice", twice.name)));
    }
    // As in the file: weight 1 for each if none is given, else 0 for those without.
    let default = u32::from(versions.iter().all(|v| v.weight.is_none()));
    let lines: String = versions.iter().map(|v| v.line(v.weight.unwrap_or(default))).collect();
    if versions.iter().all(|v| v.weight == Some(0)) {
        return Err(Failure::usage("every version has weight 0, so none would get a request; give one a weight"));
    }
    Ok(TEMPLATE.replace("{split}", name.as_str()).replace("{key}", &key(name.as_str())).replace("{versions}", &lines))
}

/// A name as a TOML key: only the dot needs quotes.
fn key(name: &str) -> String {
    if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() }
}

const TEMPLATE: &str = r#"# Requests come in at a listener, a route sends them to a split, the split divides them among its versions.
# A change of this file is taken at once, without losing a request. `weir check` tells what is wrong with it.

[listeners.web]
bind = "127.0.0.1:8080"                # "0.0.0.0:8080" for requests from other machines

[[routes]]
split = "{split}"                         # no match = every request; e.g. match = { host = "shop.example.com" }

# A weight is relative: 90 and 10 are 90 % and 10 %. Move it without touching this file: `weir shift {split} VERSION=25`
# (25 %), or back to the stable version at once: `weir rollback {split}`. Stable is the version of the largest weight.
[splits.{key}.versions]
{versions}"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&t| t.to_owned()).collect()
    }

    fn refusal(split: &str, texts: &[&str]) -> Failure {
        file(split, &versions(texts)).unwrap_err()
    }

    #[test]
    fn the_file_is_the_seven_lines_of_the_specification() {
        let text = file("shop", &versions(&["v1=127.0.0.1:9001@90", "v2=127.0.0.1:9002@10"])).unwrap();
        let bare = |line: &str| line.split('#').next().unwrap_or_default().trim_end().to_owned();
        let lines: Vec<_> = text.lines().map(bare).filter(|l| !l.is_empty()).collect();
        let expected = [
            "[listeners.web]",
            "bind = \"127.0.0.1:8080\"",
            "[[routes]]",
            "split = \"shop\"",
            "[splits.shop.versions]",
            "v1 = { weight = 90, endpoints = [\"127.0.0.1:9001\"] }",
            "v2 = { weight = 10, endpoints = [\"127.0.0.1:9002\"] }",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn dots_addresses_and_absent_weights_become_toml() {
        let text = file("shop.eu", &versions(&["2.1=[::1]:1,127.0.0.1:2", "b=127.0.0.1:3"])).unwrap();
        let table: toml::Table = text.parse().unwrap();
        let version = &table["splits"]["shop.eu"]["versions"]["2.1"];
        assert_eq!(version["weight"].as_integer(), Some(1));
        assert_eq!(version["endpoints"].as_array().unwrap().len(), 2);
        let text = file("a", &versions(&["v1=127.0.0.1:1@5", "v2=127.0.0.1:3"])).unwrap();
        assert!(text.contains("v2 = { weight = 0,"), "{text}");
    }

    #[test]
    fn nonsense_is_wrong_usage() {
        for bad in [
            "v1",
            "v1=",
            "v1=localhost:1",
            "v1=127.0.0.1",
            "v1=127.0.0.1:0",
            "v1=127.0.0.1:1@x",
            "=127.0.0.1:1",
            "v1=127.0.0.1:1@-1",
            "v1=127.0.0.1:1@1000001",
            "v/1=127.0.0.1:1",
            "v1=127.0.0.1:1,",
        ] {
            assert_eq!(refusal("shop", &[bad]).exit, Exit::Usage, "{bad}");
        }
        assert!(refusal("a b", &["v1=127.0.0.1:1"]).text.contains("is no name"));
        assert!(refusal("a", &["v1=127.0.0.1:1", "v1=127.0.0.1:2"]).text.contains("twice"));
        assert!(refusal("a", &["v1=127.0.0.1:1@0"]).text.contains("weight 0"));
    }
}
