//! Every check over every committed seed, each cut short and doubled too: what a build without libFuzzer can do.

use std::fs;
use std::path::Path;

fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus-seeds").join(target);
    let mut count = 0;
    for file in fs::read_dir(folder).unwrap() {
        let seed = fs::read(file.unwrap().path()).unwrap();
        (0..=seed.len()).step_by(1 + seed.len() / 64).for_each(|n| check(&seed[..n]));
        check(&seed);
        check(&[&seed[..], &seed].concat());
        count += 1;
    }
    assert!(count > 2, "only {count} seeds for {target}");
}

#[test]
fn toml_loader() {
    run("toml_loader", weir_fuzz::toml_loader::check);
}

#[test]
fn host_path() {
    run("host_path", weir_fuzz::host_path::check);
}

#[test]
fn forwarded() {
    run("forwarded", weir_fuzz::forwarded::check);
}

#[test]
fn proxy_protocol() {
    run("proxy_protocol", weir_fuzz::proxy_protocol::check);
}

#[test]
fn cookie_bucket() {
    run("cookie_bucket", weir_fuzz::cookie_bucket::check);
}

#[test]
fn http1_path() {
    run("http1_path", weir_fuzz::http1_path::check);
}
