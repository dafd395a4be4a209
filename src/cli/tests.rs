//! Whole commands against a scripted admin API on loopback: what is sent, and how the command ends.

mod rollout;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use clap::Parser;

use super::*;

const HOOKS: Hooks = Hooks {
    run: |_| ExitCode::from(100),
    check: |_| ExitCode::from(101),
    schema: || "{}".to_owned(),
    demo: |_| ExitCode::from(102),
    simulate: |options| Ok(Simulated { text: String::new(), json: format!("{options:?}") }),
};

const SHOP: &str = r#"{"name":"shop","revision":7,"state":"steady","stable":"v1","weights":{"v1":90,"v2":10},
    "file_weights":{"v1":90,"v2":10},"persisted":true,"override":null,"versions":[]}"#;

/// Answers one connection after the other with (status, body), then returns the requests as text.
fn script(answers: Vec<(u16, String)>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = move || answers.into_iter().map(|(status, body)| exchange(&listener, status, &body)).collect();
    (url, std::thread::spawn(serve))
}

fn exchange(listener: &TcpListener, status: u16, body: &str) -> String {
    let mut stream = listener.accept().unwrap().0;
    let request = read_request(&stream);
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\netag: \"7\"\r\n\r\n{body}").unwrap();
    request
}

fn read_request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut text).unwrap() > 0, "request ended early: {text}");
    }
    let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    text + &String::from_utf8(body).unwrap()
}

fn run(url: &str, line: &str) -> Result<(), Failure> {
    let line = format!("weir --admin {url} -q {line}");
    let cli = Cli::parse_from(line.split_whitespace());
    let printer = Printer::new(&cli.common);
    let code = local_or_remote(cli.command, &cli.common, printer, HOOKS)?;
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    Ok(())
}

/// Runs a command against the script; the requests and how it ended.
fn scripted(line: &str, answers: &[(u16, &str)]) -> (Vec<String>, Result<(), Failure>) {
    let (url, server) = script(answers.iter().map(|&(s, b)| (s, b.to_owned())).collect());
    let result = run(&url, line);
    (server.join().unwrap(), result)
}

/// The JSON a request carries.
fn body(request: &str) -> serde_json::Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn problem(status: u16, slug: &str) -> (u16, String) {
    (status, format!(r#"{{"type":"/problems/{slug}","title":"t","status":{status},"detail":"d"}}"#))
}

#[test]
fn shift_sends_all_weights_on_the_condition_it_was_computed_for() {
    let (requests, result) = scripted("shift shop v2=25 --reason go", &[(200, SHOP), (200, SHOP)]);
    result.unwrap();
    assert!(requests[0].starts_with("GET /api/v1/splits/shop HTTP/1.1\r\n"), "{}", requests[0]);
    let put = &requests[1];
    assert!(put.starts_with("PUT /api/v1/splits/shop/weights HTTP/1.1\r\n"), "{put}");
    for line in ["if-match: \"7\"\r\n", "weir-source: cli\r\n", "weir-by: local:", "content-type: application/json\r\n"]
    {
        assert!(put.contains(line), "{line} in {put}");
    }
    assert_eq!(body(put), serde_json::json!({ "weights": { "v1": 75, "v2": 25 }, "hold": false, "reason": "go" }));
}

#[test]
fn shift_is_computed_anew_when_somebody_was_first_and_gives_up_in_the_end() {
    let (status, changed) = problem(412, "revision-changed");
    let moved = SHOP.replace(r#""weights":{"v1":90,"v2":10}"#, r#""weights":{"v1":1,"v2":0}"#);
    let answers = [(200, SHOP), (status, changed.as_str()), (200, &moved), (200, &moved)];
    let (requests, result) = scripted("shift shop v1=100", &answers);
    result.unwrap();
    assert_eq!(requests.len(), 4);

    let again: Vec<_> = (0..4).flat_map(|_| [(200, SHOP), (status, changed.as_str())]).collect();
    let failure = scripted("shift shop v2=1", &again).1.unwrap_err();
    assert_eq!((failure.exit, failure.code.as_str()), (Exit::Refused, "revision-changed"));
}

#[test]
fn shift_refuses_nonsense_before_anything_is_changed() {
    assert_eq!(run("127.0.0.1:1", "shift shop v1=60 v2=60").unwrap_err().exit, Exit::Usage);
    assert_eq!(scripted("shift shop v1=1 v2=2", &[(200, SHOP)]).1.unwrap_err().exit, Exit::Usage);
    let failure = scripted("shift shop v9=2", &[(200, SHOP)]).1.unwrap_err();
    assert_eq!((failure.exit, failure.code.as_str()), (Exit::Refused, "unknown-version"));
}

#[test]
fn rollback_goes_ahead_although_the_look_before_failed() {
    let (requests, result) = scripted("rollback shop --to v1 --reason p99", &[(500, ""), (200, SHOP)]);
    result.unwrap();
    assert!(requests[1].starts_with("POST /api/v1/splits/shop/rollback HTTP/1.1\r\n"), "{}", requests[1]);
    assert_eq!(body(&requests[1]), serde_json::json!({ "to": "v1", "force": false, "reason": "p99" }));
}

#[test]
fn release_and_drains_ask_the_right_paths() {
    let requests = scripted("release shop --dry-run", &[(200, SHOP), (200, SHOP)]).0;
    assert!(
        requests[1].starts_with("DELETE /api/v1/splits/shop/override?dry_run=true HTTP/1.1\r\n"),
        "{}",
        requests[1]
    );
    let requests = scripted("drain shop/v1/10.0.0.1:9", &[(200, SHOP)]).0;
    assert!(requests[0].starts_with("POST /api/v1/splits/shop/versions/v1/drain HTTP/1.1\r\n"), "{}", requests[0]);
    assert_eq!(body(&requests[0]), serde_json::json!({ "endpoint": "10.0.0.1:9", "reason": "" }));
    let requests = scripted("undrain shop/v1", &[(200, SHOP)]).0;
    assert!(requests[0].starts_with("POST /api/v1/splits/shop/versions/v1/undrain HTTP/1.1\r\n"), "{}", requests[0]);
}

const BUSY: &str = r#"{"drained":false,"in_flight":{"total":3,"requests":2,"streams":1,"upgrades":0},"endpoints":[]}"#;
const EMPTY: &str = r#"{"drained":true,"in_flight":{"total":0,"requests":0,"streams":0,"upgrades":0},"endpoints":[]}"#;

#[test]
fn drain_waits_until_nothing_is_in_flight() {
    let answers = [(200, SHOP), (202, BUSY), (202, BUSY), (200, EMPTY)];
    let (requests, result) = scripted("drain shop/v1/10.0.0.1:9 --wait", &answers);
    result.unwrap();
    for (request, wait) in requests[1..].iter().zip(["0ms", "1000ms", "1000ms"]) {
        let path = format!("GET /api/v1/splits/shop/versions/v1/drain?wait={wait}&endpoint=10.0.0.1:9 HTTP/1.1\r\n");
        assert!(request.starts_with(&path), "{request}");
    }
}

#[test]
fn drain_tells_what_is_left_when_the_time_is_over() {
    let failure = busy_for_ever("drain shop/v1 --wait --timeout 1ms");
    assert_eq!(failure.exit, Exit::WaitTimeout);
    assert!(failure.text.contains("3 in flight after 1ms (2 requests, 1 streams, 0 upgrades)"), "{}", failure.text);
}

fn busy_for_ever(line: &str) -> Failure {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Ends with the test process; its last accept waits for a connection that does not come.
    std::thread::spawn(move || {
        exchange(&listener, 200, SHOP);
        loop {
            exchange(&listener, 202, BUSY);
        }
    });
    run(&url, line).unwrap_err()
}

#[test]
fn reload_with_errors_has_its_own_exit_code() {
    let (status, body) = problem(422, "invalid-config");
    let failure = scripted("reload", &[(status, &body)]).1.unwrap_err();
    assert_eq!((failure.exit, failure.code.as_str()), (Exit::ConfigInvalid, "invalid-config"));
    let (status, body) = problem(409, "held-conflict");
    assert_eq!(scripted("reload", &[(status, &body)]).1.unwrap_err().exit, Exit::Refused);
}

#[test]
fn quiet_status_is_the_readiness_probe() {
    let (requests, result) = scripted("status", &[(200, "ready")]);
    result.unwrap();
    assert!(requests[0].starts_with("GET /readyz HTTP/1.1\r\n"), "{}", requests[0]);
}

#[test]
fn looking_understands_the_answers() {
    scripted("history shop --limit 3 --before 9", &[(200, r#"{"history":[],"next_before":null}"#)]).1.unwrap();
    let path = scripted("history shop --before 9", &[(200, r#"{"history":[]}"#)]).0.remove(0);
    assert!(path.starts_with("GET /api/v1/history?limit=50&split=shop&before=9 HTTP/1.1\r\n"), "{path}");
    let failure = scripted("history", &[(200, "<html>")]).1.unwrap_err();
    assert_eq!((failure.exit, failure.code.as_str()), (Exit::Failed, "bad-answer"));
}

#[test]
fn nobody_there_is_told_with_the_address_and_a_remedy() {
    // Bound and dropped: a port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let failure = run(&format!("http://{address}"), "history").unwrap_err();
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.text.contains(&address.to_string()), "{failure:?}");
    assert!(failure.notes[0].contains("--admin"), "{failure:?}");
}

#[test]
fn an_answer_that_does_not_come_ends_by_the_time_limit() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let failure = run(&url, "history --timeout 50ms").unwrap_err();
    assert_eq!((failure.exit, failure.code.as_str()), (Exit::Unreachable, "admin-timeout"));
}

#[test]
fn what_is_not_built_says_so() {
    for line in ["explain https://a/", "events", "flags list", "import nginx.conf"] {
        let failure = run("127.0.0.1:1", line).unwrap_err();
        assert_eq!((failure.exit, failure.code.as_str()), (Exit::Failed, "not-yet"), "{line}");
    }
}

#[test]
fn run_check_and_demo_are_handed_on() {
    for (line, code) in [("run", 100), ("check x.toml --format json --strict", 101), ("demo --seconds 1", 102)] {
        let cli = Cli::parse_from(format!("weir {line}").split_whitespace());
        assert_eq!(format!("{:?}", main_with(cli, HOOKS)), format!("{:?}", ExitCode::from(code)));
    }
}

/// How the command understood its options, by the hook's word.
fn simulated(line: &str) -> Result<(), Failure> {
    run("127.0.0.1:1", &format!("simulate -o json {line}"))
}

#[test]
fn simulate_needs_nothing_running_and_hands_its_options_on() {
    let cli = Cli::parse_from("weir simulate --rps 50 --errors 2% --steps 1:2m,50".split(' '));
    let Command::Simulate(args) = cli.command.clone() else { panic!("not simulate") };
    fn hook(options: &SimulateOptions) -> Result<Simulated, Failure> {
        assert_eq!((options.per_second, options.errors, options.canary_errors), (50.0, 0.02, 0.02));
        assert_eq!((options.config.as_deref(), options.runs, options.seed), (None, 200, 1));
        assert_eq!((options.latency.as_millis(), options.spread, options.canary_slower), (20, 8.0, 1.0));
        assert_eq!(options.steps.as_ref().unwrap().len(), 2);
        Err(Failure::usage("seen"))
    }
    let printer = Printer::new(&cli.common);
    assert_eq!(simulate::simulate(&cli.common, printer, args, hook).unwrap_err(), Failure::usage("seen"));
    simulated("weir.toml --split shop --canary-errors 0.5 --step-weights 1,5,100").unwrap();
}

#[test]
fn simulate_refuses_what_it_cannot_do() {
    assert_eq!(simulated("--recorded receipt.json").unwrap_err().code, "not-yet");
    for bad in ["--errors 2", "--rps 0", "--steps 5,1", "--runs 0", "--latency 20", "--spread x", "--history 1000000"] {
        let error = Cli::try_parse_from(format!("weir simulate {bad}").split(' ')).expect_err(bad);
        assert_eq!(error.exit_code(), 2, "{bad}");
    }
}

#[test]
fn manual_and_completions_are_made() {
    let dir = tempfile::tempdir().unwrap();
    run("127.0.0.1:1", &format!("man --dir {}", dir.path().display())).unwrap();
    assert!(dir.path().join("weir.1").is_file());
    assert!(dir.path().join("weir-shift.1").is_file());
    run("127.0.0.1:1", "completions bash").unwrap();
}

#[test]
fn init_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weir.toml");
    let line = format!("init shop v1=127.0.0.1:9001@90 v2=127.0.0.1:9002@10 -c {}", file.display());
    run("127.0.0.1:1", &line).unwrap();
    std::fs::write(&file, "mine").unwrap();
    let failure = run("127.0.0.1:1", &line).unwrap_err();
    assert_eq!((failure.exit, failure.code.as_str()), (Exit::Failed, "file-exists"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}
