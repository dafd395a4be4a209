//! Notices over real loopback servers: what is posted, to whom, and what dead targets do to others.

// A helper of a test fails it by panicking, as the test itself does; clippy knows only the latter.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::config::{Notify, NotifyFormat, NotifyOn, WebUrl};
use crate::model::SplitName;

fn notice(event: &str, key: &str) -> Notice {
    Notice {
        event: event.into(),
        split: Some(SplitName::new("shop").unwrap()),
        text: "back to v1: 5 < 7 & <!channel>".into(),
        rollout: Some("01J0".into()),
        key: key.into(),
        at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_772_366_400_123),
    }
}

fn target(place: &str, format: NotifyFormat, on: &[NotifyOn]) -> Notify {
    Notify { url: WebUrl::parse(&format!("http://{place}/T0/B0")).unwrap(), format, on: on.to_vec() }
}

/// Answers each request on a connection of its own with the next status, the last one again and again; gives the bodies.
async fn server(statuses: &'static [u16]) -> (String, mpsc::UnboundedReceiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let (told, bodies) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for i in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"}") {
                assert!(stream.read_buf(&mut asked).await.unwrap() > 0, "{}", String::from_utf8_lossy(&asked));
            }
            let asked = String::from_utf8(asked).unwrap();
            assert!(asked.starts_with("POST /T0/B0 HTTP/1.1\r\n"), "{asked}");
            told.send(serde_json::from_str(asked.split_once("\r\n\r\n").unwrap().1).unwrap()).unwrap();
            let status = statuses[i.min(statuses.len() - 1)];
            stream.write_all(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
        }
    });
    (place, bodies)
}

fn start(targets: Vec<Notify>) -> (Notices, JoinHandle<()>) {
    let (notices, inbox) = channel();
    (notices, tokio::spawn(run(inbox, move || targets.clone())))
}

async fn next(bodies: &mut mpsc::UnboundedReceiver<Value>) -> Value {
    tokio::time::timeout(Duration::from_secs(20), bodies.recv()).await.expect("it is told in time").unwrap()
}

#[tokio::test]
async fn each_gets_what_it_wants_in_its_format_and_all_is_told_before_the_end() {
    let (json_place, mut json_bodies) = server(&[200]).await;
    let (slack_place, mut slack_bodies) = server(&[200]).await;
    let json_target = target(&json_place, NotifyFormat::Json, &NotifyOn::ALL);
    let slack_target = target(&slack_place, NotifyFormat::Slack, &[NotifyOn::RolledBack]);
    let (notices, task) = start(vec![json_target.clone(), slack_target, json_target]);
    notices.send(notice("rollout-started", "k1"));
    notices.send(notice("rolled-back", "k2"));
    notices.send(notice("no-such-event", "k3"));
    let expected = json!({"event": "rollout-started", "split": "shop", "text": "back to v1: 5 < 7 & <!channel>",
        "rollout": "01J0", "key": "k1", "at": "2026-03-01T12:00:00.123Z"});
    assert_eq!(next(&mut json_bodies).await, expected);
    assert_eq!(next(&mut json_bodies).await["key"], "k2", "once, and in order");
    let line = "shop: rolled-back: back to v1: 5 &lt; 7 &amp; &lt;!channel&gt;";
    assert_eq!(next(&mut slack_bodies).await, json!({ "text": line }));
    drop(notices);
    task.await.unwrap();
    assert!(json_bodies.try_recv().is_err() && slack_bodies.try_recv().is_err(), "nobody was told of the third");
}

#[tokio::test]
async fn what_has_no_split_says_null() {
    let (place, mut bodies) = server(&[200]).await;
    let (notices, _task) = start(vec![target(&place, NotifyFormat::Json, &NotifyOn::ALL)]);
    notices.send(Notice { split: None, rollout: None, ..notice("config-rejected", "k") });
    let found = next(&mut bodies).await;
    assert_eq!((&found["split"], &found["rollout"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_busy_target_is_tried_again_with_the_same_key() {
    let (place, mut bodies) = server(&[503, 200]).await;
    let (notices, task) = start(vec![target(&place, NotifyFormat::Json, &NotifyOn::ALL)]);
    notices.send(notice("rolled-back", "k1"));
    let first = next(&mut bodies).await;
    assert_eq!(next(&mut bodies).await, first);
    drop(notices);
    task.await.unwrap();
}

#[tokio::test]
async fn a_dead_target_holds_nobody_and_loses_only_its_own() {
    // It accepts, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (place, mut bodies) = server(&[200]).await;
    let dead = target(&silent.local_addr().unwrap().to_string(), NotifyFormat::Json, &NotifyOn::ALL);
    let (notices, task) = start(vec![dead, target(&place, NotifyFormat::Json, &NotifyOn::ALL)]);
    for i in 0..100 {
        notices.send(notice("rolled-back", &i.to_string()));
        assert_eq!(next(&mut bodies).await["key"], i.to_string());
    }
    // One is being tried and 64 wait.
    assert_eq!(notices.dropped(), 100 - 64 - 1);
    task.abort();
}

#[tokio::test]
async fn without_room_a_notice_is_dropped_and_counted() {
    let (notices, inbox) = channel();
    (0..300).for_each(|i| notices.send(notice("rolled-back", &i.to_string())));
    assert_eq!(notices.dropped(), 300 - 256);
    drop(inbox);
    notices.clone().send(notice("rolled-back", "late"));
    assert_eq!(notices.dropped(), 300 - 256 + 1, "nor does it fail when nobody listens");
}

#[tokio::test]
async fn a_target_that_leaves_the_configuration_is_told_nothing_more() {
    let (busy_place, mut busy_bodies) = server(&[503]).await;
    let (place, mut bodies) = server(&[200]).await;
    let busy = target(&busy_place, NotifyFormat::Json, &NotifyOn::ALL);
    let targets = Arc::new(Mutex::new(vec![busy]));
    let (notices, inbox) = channel();
    let task = tokio::spawn(run(inbox, {
        let targets = targets.clone();
        move || targets.lock().unwrap().clone()
    }));
    notices.send(notice("rolled-back", "k1"));
    assert_eq!(next(&mut busy_bodies).await["key"], "k1");
    *targets.lock().unwrap() = vec![target(&place, NotifyFormat::Json, &NotifyOn::ALL)];
    notices.send(notice("rolled-back", "k2"));
    assert_eq!(next(&mut bodies).await["key"], "k2");
    drop(notices);
    // Not after four minutes: the tries at the first one have ended with it.
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("it ends").unwrap();
    assert!(busy_bodies.try_recv().is_err());
}
