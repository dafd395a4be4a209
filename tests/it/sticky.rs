//! Sticky: a user stays where they are, moves only forward while weights rise, and a rollback moves everybody at once.

use serde_json::json;

use crate::support::{Authority, Conf, Connection, Origin, Weir, times};

const COOKIE: &str = "sticky = { by = \"cookie\" }";
/// Whole lines of a user's request.
type Fields = String;

fn get(client: &mut Connection, fields: &str) -> crate::support::Answer {
    client.ask(format!("GET / HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n")).unwrap()
}

/// `name=value` of the cookie an answer sets.
fn cookie_of(answer: &crate::support::Answer) -> Option<String> {
    Some(answer.head.get("set-cookie")?.split(';').next()?.to_owned())
}

/// Users who ask once a step, over a few connections.
struct Users {
    weir: Weir,
    fields: Vec<Fields>,
}

impl Users {
    /// One request of every user: who is on `v2`. A user without a cookie takes the one they are given.
    fn ask(&mut self) -> Vec<bool> {
        let (weir, each) = (&self.weir, self.fields.len().div_ceil(4));
        std::thread::scope(|threads| {
            let turn = |users: &mut [Fields]| {
                let mut client = weir.connect();
                let one = |fields: &mut Fields| {
                    let answer = get(&mut client, fields);
                    assert_eq!(answer.status(), 200);
                    if let Some(cookie) = cookie_of(&answer) {
                        assert!(fields.is_empty(), "a user who has a cookie gets no other: {fields} {cookie}");
                        *fields = format!("Cookie: a=b; {cookie}\r\n");
                    }
                    answer.text() == "v2"
                };
                users.iter_mut().map(one).collect::<Vec<_>>()
            };
            let all: Vec<_> = self.fields.chunks_mut(each).map(|users| threads.spawn(move || turn(users))).collect();
            all.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    }

    /// Through all steps and a rollback.
    fn go_through(&mut self) {
        let mut before = vec![false; self.fields.len()];
        for percent in [1, 5, 25, 50, 100] {
            self.weir.admin.shift(100 - percent, percent);
            let now = self.ask();
            let (users, part) = (now.len() as f64, percent as f64 / 100.0);
            let seen = now.iter().filter(|on| **on).count() as f64;
            let sigma = (users * part * (1.0 - part)).sqrt();
            assert!((seen - users * part).abs() <= 5.0 * sigma, "{seen} of {users} at {percent} %");
            let back = before.iter().zip(&now).filter(|(before, now)| **before && !**now).count();
            assert_eq!(back, 0, "{back} went back when v2 rose to {percent} %");
            assert_eq!(self.ask(), now, "who asks again stays");
            before = now;
        }
        self.weir.admin.rollback();
        assert!(self.ask().iter().all(|on_v2| !on_v2), "a rollback is for everybody's next request");
    }
}

fn conf(v1: &Origin, v2: &Origin, sticky: &str) -> Conf {
    Conf::two((100, v1.address), (0, v2.address)).split("stable = \"v1\"").split(sticky)
}

fn origins() -> (Origin, Origin) {
    (Origin::named("v1"), Origin::named("v2"))
}

#[test]
fn ten_thousand_users_by_cookie() {
    let (v1, v2) = origins();
    let weir = Weir::start(&conf(&v1, &v2, COOKIE));
    Users { weir, fields: vec![String::new(); times(2_000, 10_000)] }.go_through();
}

#[test]
fn users_by_header() {
    let (v1, v2) = origins();
    let weir = Weir::start(&conf(&v1, &v2, "sticky = { by = \"header\", name = \"x-user\" }"));
    let fields = (0..times(500, 10_000)).map(|n| format!("X-User: user-{n}\r\n")).collect();
    Users { weir, fields }.go_through();
}

#[test]
fn users_by_client_ip() {
    let (v1, v2) = origins();
    let conf = conf(&v1, &v2, "sticky = { by = \"client_ip\" }").web("trusted_proxies = [\"127.0.0.1\"]");
    let fields = (0..times(500, 10_000)).map(|n| format!("X-Forwarded-For: 10.1.{}.{}\r\n", n / 250, n % 250));
    Users { weir: Weir::start(&conf), fields: fields.collect() }.go_through();
}

#[test]
fn the_cookie_says_nothing_of_versions_and_is_secure_over_tls_only() {
    let (v1, v2) = origins();
    let authority = Authority::new();
    let pair = authority.sign("app.test");
    let secure = "[listeners.secure]\nbind = \"127.0.0.1:0\"\n\
                  tls = { certificates = [{ cert = \"app.pem\", key = \"app.key\" }] }";
    let conf = conf(&v1, &v2, "sticky = { by = \"cookie\", name = \"who\", ttl = \"1h\" }").tail(secure);
    let weir = Weir::start_with(&conf, &[("app", &pair)], &[]);
    let plain = get(&mut weir.connect(), "");
    let mut client = Connection::open_tls(weir.listener("secure"), &authority.client(None), "app.test").unwrap();
    let over_tls = get(&mut client, "");
    let attributes = |answer: &crate::support::Answer| {
        let all = answer.head.get("set-cookie").unwrap().split("; ").map(str::to_owned).collect::<Vec<_>>();
        let (name, value) = all[0].split_once('=').unwrap();
        let bucket: u16 = value.split('.').next().unwrap().parse().unwrap();
        assert!(name == "who" && bucket < 10_000 && !value.contains("v1"), "{value}");
        all[1..].to_vec()
    };
    assert_eq!(attributes(&plain), ["Path=/", "Max-Age=3600", "HttpOnly", "SameSite=Lax"]);
    assert_eq!(attributes(&over_tls), ["Path=/", "Max-Age=3600", "HttpOnly", "SameSite=Lax", "Secure"]);
}

#[test]
fn a_cookie_that_is_none_is_replaced_and_a_good_one_kept() {
    let (v1, v2) = origins();
    let weir = Weir::start(&conf(&v1, &v2, COOKIE));
    weir.admin.shift(50, 50);
    let mut client = weir.connect();
    for garbage in ["", "x", "v2", "10000.0", "-1.0", "1e3.0", "\"5.0\"", "99999999999999999999999.0", "\u{e9}.0"] {
        let answer = get(&mut client, &format!("Cookie: weir_shop={garbage}\r\n"));
        let cookie = cookie_of(&answer).unwrap_or_else(|| panic!("{garbage:?}: {}", answer.head.raw));
        let home = answer.text();
        for _ in 0..5 {
            let again = get(&mut client, &format!("Cookie: {cookie}\r\n"));
            assert_eq!((again.text(), again.head.has("set-cookie")), (home.clone(), false), "{cookie}");
        }
    }
    // Somebody without any header or cookie of ours is still dealt with by the coin.
    let mixed = "Cookie: other=1\r\nCookie: weir_shop=1.0\r\n";
    assert!(!get(&mut client, mixed).head.has("set-cookie"), "a second Cookie line is read too");
}

#[test]
fn users_stay_over_a_restart() {
    let (v1, v2) = origins();
    let weir = Weir::start(&conf(&v1, &v2, COOKIE));
    weir.admin.shift(70, 30);
    let mut users = Users { weir, fields: vec![String::new(); 300] };
    let before = users.ask();
    let Users { weir, fields } = users;
    // Owners depend on the way the weights came here, not on the weights alone.
    let mut users = Users { weir: weir.kill_and_restart(), fields };
    assert_eq!(users.ask(), before);
    users.weir.admin.shift(50, 50);
    let risen = users.ask();
    assert!(before.iter().zip(&risen).all(|(before, now)| !before || *now), "nobody moves back");
    let Users { weir, fields } = users;
    let mut users = Users { weir: weir.kill_and_restart(), fields };
    assert_eq!(users.ask(), risen);
}

#[test]
fn users_of_a_draining_version_go_elsewhere_and_come_back() {
    let (v1, v2) = origins();
    let weir = Weir::start(&conf(&v1, &v2, COOKIE));
    weir.admin.shift(50, 50);
    let mut users = Users { weir, fields: vec![String::new(); 200] };
    let before = users.ask();
    let to = |users: &Users, what: &str| {
        let answer = users.weir.admin.post(&format!("/api/v1/splits/shop/versions/v2/{what}"), json!({}));
        assert_eq!(answer.status(), 200, "{}", answer.text());
    };
    to(&users, "drain");
    assert!(users.ask().iter().all(|on_v2| !on_v2));
    to(&users, "undrain");
    assert_eq!(users.ask(), before, "who was there is there again, nobody else");
}

#[test]
fn picked_says_sticky_and_who_has_no_key_is_dealt() {
    let (v1, v2) = origins();
    let weir = Weir::start(&conf(&v1, &v2, "sticky = { by = \"header\", name = \"x-user\" }"));
    weir.admin.shift(50, 50);
    let mut client = weir.connect();
    client.ask("GET /known HTTP/1.1\r\nHost: app.test\r\nX-User: alice\r\n\r\n").unwrap();
    client.ask("GET /unknown HTTP/1.1\r\nHost: app.test\r\n\r\n").unwrap();
    assert_eq!(weir.line_of("/known")["picked"], "sticky");
    assert_eq!(weir.line_of("/unknown")["picked"], "weight");
    let mut seen = |fields: &str| {
        let answers: Vec<_> = (0..256).map(|_| get(&mut client, fields).text() == "v2").collect();
        answers.iter().filter(|on| **on).count()
    };
    assert!(matches!(seen("X-User: alice\r\n"), 0 | 256));
    // One whole deck, and parts of two: six standard deviations of what those can be off.
    assert!(seen("").abs_diff(128) <= 24, "dealt by weight");
}
