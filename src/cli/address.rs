//! Where the running weir is asked: `--admin`, `$WEIR_ADMIN`, `admin.bind` of the file it would run, 127.0.0.1:9901.
//!
//! Invariant: a file that does not parse (somebody is editing it) never keeps `weir rollback` from working: only
//! `admin.bind` is read, by the recovering parser.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::args::Common;
use super::exit::{Exit, Failure};

const DEFAULT: &str = "127.0.0.1:9901";

/// Where a configuration is looked for when none is named.
pub const CONFIG_PLACES: [&str; 2] = ["./weir.toml", "/etc/weir/weir.toml"];

/// The admin API's place, and how we know, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `host:port`, as it goes into `Host`.
    pub authority: String,
    /// `--admin or $WEIR_ADMIN`, `admin.bind of weir.toml`, `the default`.
    pub from: String,
}

impl Address {
    pub fn find(common: &Common) -> Result<Self, Failure> {
        match common.admin.as_deref().filter(|a| !a.is_empty()) {
            Some(url) => Self::parse(url, "--admin or $WEIR_ADMIN".to_owned()),
            None => Self::of_config(config_file(common).as_deref(), common),
        }
    }

    fn of_config(file: Option<&Path>, common: &Common) -> Result<Self, Failure> {
        let default = || Self { authority: DEFAULT.to_owned(), from: "the default".to_owned() };
        let Some(file) = file else { return Ok(default()) };
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            // Searched for, not asked for: nobody needs to hear that /etc/weir/weir.toml may not be read.
            Err(_) if explicit(common).is_none() => return Ok(default()),
            Err(e) => return Err(unreadable(file, &e)),
        };
        match admin_bind(&text) {
            Some(bind) => Self::of_bind(&bind, file),
            None => Ok(Self { from: format!("the default; {} has no admin.bind", file.display()), ..default() }),
        }
    }

    fn of_bind(bind: &str, file: &Path) -> Result<Self, Failure> {
        let from = format!("admin.bind of {}", file.display());
        if bind.contains("${") {
            let text =
                format!("{from} is `{bind}`, and the command line does not know the variables of the running weir");
            return Err(Failure::usage(text).note("name the address with --admin URL or $WEIR_ADMIN"));
        }
        let authority = bind.parse::<SocketAddr>().map_or_else(|_| bind.to_owned(), |a| reachable(a).to_string());
        Self::parse(&authority, from)
    }

    fn parse(url: &str, from: String) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure::usage(format!("admin address `{url}` ({from}): {why}"));
        if url.starts_with("https://") {
            let text = format!("admin address `{url}` ({from}): https is not built yet");
            return Err(Failure::new(Exit::Failed, "not-yet", text));
        }
        let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        let parsed: http::uri::Authority =
            authority.parse().map_err(|_| wrong("write it as http://127.0.0.1:9901 or 127.0.0.1:9901"))?;
        if parsed.as_str().contains('@') {
            return Err(wrong("no user name belongs here; use --token-file"));
        }
        match parsed.port_u16() {
            Some(port) if port > 0 => Ok(Self { authority: authority.to_owned(), from }),
            _ => Err(wrong("the port is missing, as in http://127.0.0.1:9901")),
        }
    }
}

/// The file `weir run` would use: the one named by `--config` or `$WEIR_CONFIG`, else the first that exists.
pub fn config_file(common: &Common) -> Option<PathBuf> {
    explicit(common).map(Path::to_owned).or_else(|| CONFIG_PLACES.iter().map(PathBuf::from).find(|p| p.is_file()))
}

/// An empty `$WEIR_CONFIG` is none.
pub fn explicit(common: &Common) -> Option<&Path> {
    common.config.as_deref().filter(|p| !p.as_os_str().is_empty())
}

fn unreadable(file: &Path, e: &std::io::Error) -> Failure {
    Failure::new(Exit::ConfigInvalid, "file-unreadable", format!("{}: {e}", file.display()))
        .note("it was read only to find the admin address; --admin URL does without it")
}

fn admin_bind(text: &str) -> Option<String> {
    let (table, _) = toml::de::DeTable::parse_recoverable(text);
    let admin = table.get_ref().get("admin")?.get_ref().as_table()?;
    Some(admin.get("bind")?.get_ref().as_str()?.to_owned())
}

/// An address to bind "anywhere" is reached on loopback.
fn reachable(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bind.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(text: &str) -> Result<Address, Failure> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("weir.toml");
        std::fs::write(&file, text).unwrap();
        Address::find(&common(None, Some(file)))
    }

    fn common(admin: Option<&str>, config: Option<PathBuf>) -> Common {
        use clap::Parser;
        let mut common = crate::cli::Cli::parse_from(["weir", "schema"]).common;
        (common.admin, common.config) = (admin.map(str::to_owned), config);
        common
    }

    #[test]
    fn the_file_says_where() {
        assert_eq!(of_file("[admin]\nbind = \"127.0.0.1:7\"\n").unwrap().authority, "127.0.0.1:7");
        assert_eq!(of_file("admin.bind = \"0.0.0.0:7\"\n").unwrap().authority, "127.0.0.1:7");
        assert_eq!(of_file("admin = { bind = \"[::]:7\" }\n").unwrap().authority, "[::1]:7");
        assert_eq!(of_file("[admin]\nhosts = []\n").unwrap().authority, DEFAULT);
    }

    #[test]
    fn a_file_being_edited_still_says_where() {
        let broken = "[listeners.web]\nbind = \n\n[admin]\nbind = \"127.0.0.1:7\"\n[splits.shop\n";
        assert_eq!(of_file(broken).unwrap().authority, "127.0.0.1:7");
        assert_eq!(of_file("").unwrap().authority, DEFAULT);
    }

    #[test]
    fn a_variable_in_the_file_is_not_guessed() {
        let failure = of_file("[admin]\nbind = \"127.0.0.1:${ADMIN_PORT}\"\n").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.notes[0].contains("--admin"), "{failure:?}");
    }

    #[test]
    fn the_option_wins_and_is_checked() {
        let find = |url| Address::find(&common(Some(url), Some("/does/not/exist.toml".into())));
        assert_eq!(find("http://localhost:1/").unwrap().authority, "localhost:1");
        assert_eq!(find("[::1]:99").unwrap().authority, "[::1]:99");
        for bad in ["http://localhost", "a b:1", "http://a:1/path", "u:p@a:1", "a:0", "a:99999", "ftp://a:1"] {
            assert_eq!(find(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
        assert_eq!(find("https://a:1").unwrap_err().code, "not-yet");
    }

    #[test]
    fn a_named_file_that_cannot_be_read_is_told() {
        let failure = Address::find(&common(None, Some("/does/not/exist.toml".into()))).unwrap_err();
        assert_eq!((failure.exit, failure.code.as_str()), (Exit::ConfigInvalid, "file-unreadable"));
    }
}
