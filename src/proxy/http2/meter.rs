//! What a client's control frames cost it: a budget per connection, counted from the frame headers as they come in.
//!
//! h2 bounds CONTINUATION, early resets, its own error resets and empty DATA; it answers SETTINGS and PING, and takes
//! WINDOW_UPDATE, PRIORITY, RST_STREAM and unknown frames, without end (amendments.md 2.5; CVE-2019-9512, -9515 and the
//! like). Here each of them costs, time gives back a little, and useful work much more: an honest client's control frames
//! are in proportion to the data it gets, and to the streams that it may have open. Pure: `now` is an argument.

use std::time::Duration;

use crate::model::Instant;

/// What a connection begins with, and as much as time alone gives back: so much, and for each stream that may be open
/// at once what its client may spend before anything is answered. That is its window and the connection's (gRPC opens
/// both for each call), a PRIORITY, and to cancel it at once.
const BURST: i32 = 100;
const STREAM: i32 = 4 + CANCELLED;
const PER_SECOND: u128 = 100;
/// What work can earn: a busy connection that stops working is out of credit after this many frames.
const MOST: i32 = 20_000;

/// An answered request.
const ANSWER: i32 = 10;
/// A piece of a body that was sent: the client may give back its window, on the stream and on the connection, for each
/// frame, and probe with a PING.
const PIECE: i32 = 4;
/// One more for so many bytes.
const PIECE_BYTES: usize = 2048;
/// A request that was cancelled while it was young: work for nothing. One that has had its time (a deadline, an endpoint
/// that hangs) was a request like any other, and gives back what its own frames cost: the number of streams bounds it.
const CANCELLED: i32 = 4;
const YOUNG: Duration = Duration::from_millis(250);
const GIVEN_BACK: i32 = 4;

/// RFC 9113 section 3.4; the first bytes of a connection.
const PREFACE: usize = 24;
const HEAD: usize = 9;

// RFC 9113 section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// See the file's head.
#[derive(Debug)]
pub(in crate::proxy) struct Meter {
    /// Bytes to come that are no frame header: the preface, then payloads.
    skip: usize,
    head: [u8; HEAD],
    have: usize,
    /// Since when a header block is on its way.
    block: Option<Instant>,
    ends_block: bool,
    balance: i32,
    burst: i32,
    /// Up to when time has been paid out.
    paid: Instant,
}

impl Meter {
    /// `streams`: how many may be open at once.
    pub(super) fn new(now: Instant, streams: u32) -> Self {
        let burst = i32::try_from(streams).unwrap_or(MOST).saturating_mul(STREAM).saturating_add(BURST).min(MOST);
        Self {
            skip: PREFACE,
            head: [0; HEAD],
            have: 0,
            block: None,
            ends_block: false,
            balance: burst,
            burst,
            paid: now,
        }
    }

    /// The next bytes of the client, in any pieces.
    pub(super) fn read(&mut self, mut bytes: &[u8], now: Instant) {
        self.pay_out(now);
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                bytes = &bytes[n..];
                self.skip -= n;
            } else {
                let n = (HEAD - self.have).min(bytes.len());
                self.head[self.have..self.have + n].copy_from_slice(&bytes[..n]);
                bytes = &bytes[n..];
                self.have += n;
                if self.have == HEAD {
                    self.have = 0;
                    self.frame(now);
                }
            }
            if self.skip == 0 && self.ends_block {
                (self.block, self.ends_block) = (None, false);
            }
        }
    }

    /// A whole frame header is there.
    fn frame(&mut self, now: Instant) {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        self.skip = length;
        if kind == HEADERS || kind == CONTINUATION {
            self.block.get_or_insert(now);
            self.ends_block = flags & END_HEADERS != 0;
        }
        self.charge(match kind {
            DATA if length == 0 && flags & END_STREAM == 0 => 2,
            // A stream needs one of these; how many there are at a time is bounded, and of those beyond h2 bears few.
            DATA | HEADERS => 0,
            _ => 1,
        });
    }

    fn pay_out(&mut self, now: Instant) {
        let millis = now.saturating_duration_since(self.paid).as_millis();
        let due = (millis * PER_SECOND / 1000).min(MOST as u128) as i32;
        if due > 0 {
            self.paid = now;
            self.balance = self.balance.max((self.balance + due).min(self.burst));
        }
    }

    /// The client has caused work for nothing, by more than its frames.
    pub(super) fn charge(&mut self, cost: i32) {
        self.balance = self.balance.saturating_sub(cost);
    }

    /// A request was answered.
    pub(super) fn answered(&mut self) {
        self.earn(ANSWER);
    }

    /// A request was cancelled by the client, so long after it had come.
    pub(super) fn cancelled(&mut self, after: Duration) {
        if after < YOUNG { self.charge(CANCELLED) } else { self.earn(GIVEN_BACK) }
    }

    /// So many bytes of an answer's body were handed to the client's connection in one piece.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.earn(PIECE.saturating_add((bytes / PIECE_BYTES) as i32));
    }

    fn earn(&mut self, credit: i32) {
        self.balance = self.balance.saturating_add(credit).min(MOST);
    }

    /// The budget is used up: the connection is to be ended.
    pub(super) fn is_over(&self) -> bool {
        self.balance < 0
    }

    /// Since when a header block has begun and not ended, to the clock that `read` was given.
    pub(super) fn block_since(&self) -> Option<Instant> {
        self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIORITY: u8 = 2;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;
    const STREAMS: u32 = 128;
    const FIRST: i32 = BURST + STREAMS as i32 * STREAM;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + payload, 0xff);
        frame
    }

    /// After the preface.
    fn meter(now: Instant) -> Meter {
        let mut meter = Meter::new(now, STREAMS);
        meter.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now);
        meter
    }

    fn pings_until_over(meter: &mut Meter, now: Instant) -> usize {
        (1..)
            .find(|_| {
                meter.read(&frame(PING, 0, 8), now);
                meter.is_over()
            })
            .unwrap()
    }

    #[test]
    fn a_flood_is_over_after_the_burst() {
        for (kind, payload, cost) in [
            (SETTINGS, 0, 1),
            (PING, 8, 1),
            (PRIORITY, 5, 1),
            (WINDOW_UPDATE, 4, 1),
            (RST_STREAM, 4, 1),
            (0xfa, 3, 1),
            (DATA, 0, 2),
        ] {
            let now = Instant::now();
            let mut meter = meter(now);
            let frames = (1..).find(|_| {
                meter.read(&frame(kind, 0, payload), now);
                meter.is_over()
            });
            assert_eq!(frames, Some(FIRST / cost + 1), "kind {kind}");
        }
    }

    #[test]
    fn requests_and_uploads_cost_nothing() {
        let now = Instant::now();
        let mut meter = meter(now);
        for _ in 0..1000 {
            meter.read(&frame(HEADERS, END_HEADERS, 30), now);
            meter.read(&frame(DATA, 0, 100), now);
            meter.read(&frame(DATA, END_STREAM, 0), now);
        }
        assert!(!meter.is_over() && meter.balance == FIRST);
    }

    #[test]
    fn any_pieces_count_the_same() {
        let now = Instant::now();
        let stream: Vec<u8> = [
            frame(HEADERS, 0, 300),
            frame(CONTINUATION, END_HEADERS, 20),
            frame(PING, 0, 8),
            frame(DATA, 0, 70_000),
            frame(RST_STREAM, 0, 4),
        ]
        .concat();
        for piece in [1, 2, 7, 9, 10, 1000, stream.len()] {
            let mut meter = meter(now);
            stream.chunks(piece).for_each(|bytes| meter.read(bytes, now));
            assert_eq!((meter.balance, meter.skip, meter.have), (FIRST - 3, 0, 0), "in pieces of {piece}");
            assert!(meter.block_since().is_none());
        }
    }

    #[test]
    fn time_gives_back_up_to_the_burst() {
        let start = Instant::now();
        let mut meter = meter(start);
        assert_eq!(pings_until_over(&mut meter, start), FIRST as usize + 1);
        let later = start + Duration::from_millis(500);
        assert_eq!(pings_until_over(&mut meter, later), 50);
        assert_eq!(pings_until_over(&mut meter, later + Duration::from_secs(3600)), FIRST as usize + 1);
        // A rate just below the refill is borne for ever.
        let mut now = later + Duration::from_secs(7200);
        for _ in 0..10_000 {
            now += Duration::from_millis(11);
            meter.read(&frame(PING, 0, 8), now);
            assert!(!meter.is_over());
        }
    }

    #[test]
    fn work_earns_what_its_control_frames_cost() {
        let now = Instant::now();
        let mut meter = meter(now);
        for _ in 0..10_000 {
            meter.sent(100);
            meter.read(&[frame(WINDOW_UPDATE, 0, 4), frame(WINDOW_UPDATE, 0, 4), frame(PING, 0, 8)].concat(), now);
            assert!(!meter.is_over());
        }
        assert_eq!(meter.balance, FIRST + 10_000);
        for _ in 0..10_000 {
            meter.answered();
        }
        assert_eq!(pings_until_over(&mut meter, now), MOST as usize + 1);
    }

    #[test]
    fn a_header_block_is_open_from_its_first_byte_to_its_last() {
        let start = Instant::now();
        let (mut meter, later) = (meter(start), start + Duration::from_secs(1));
        let block = [frame(HEADERS, 0, 10), frame(CONTINUATION, 0, 0), frame(CONTINUATION, END_HEADERS, 5)].concat();
        meter.read(&block[..HEAD], start);
        meter.read(&block[HEAD..block.len() - 1], later);
        assert_eq!(meter.block_since(), Some(start));
        meter.read(&block[block.len() - 1..], later);
        assert_eq!(meter.block_since(), None);
        // The next one begins anew, in the same read.
        meter.read(&[&block[..], &block[..HEAD]].concat(), later);
        assert_eq!(meter.block_since(), Some(later));
        let mut meter = self::meter(start);
        meter.read(&frame(HEADERS, END_HEADERS, 0), start);
        assert_eq!(meter.block_since(), None);
    }

    fn ended(meter: &mut Meter, streams: u32, after: Duration, now: Instant) {
        for _ in 0..streams {
            meter.read(&frame(RST_STREAM, 0, 4), now);
            meter.cancelled(after);
        }
    }

    #[test]
    fn rapid_resets_are_over_before_they_are_much_work() {
        let now = Instant::now();
        let mut meter = meter(now);
        let rounds = (1..).find(|_| {
            meter.read(&frame(HEADERS, END_HEADERS, 30), now);
            ended(&mut meter, 1, Duration::ZERO, now);
            meter.is_over()
        });
        assert_eq!(rounds, Some(FIRST as usize / 5 + 1));
    }

    /// What clients were seen to send: H a request's head, D data, w WINDOW_UPDATE, P PRIORITY, p PING, S SETTINGS.
    fn trace(letters: &str) -> Vec<u8> {
        let one = |letter| match letter {
            'H' => frame(HEADERS, END_HEADERS, 60),
            'D' => frame(DATA, END_STREAM, 8),
            'w' => frame(WINDOW_UPDATE, 0, 4),
            'P' => frame(PRIORITY, 0, 5),
            'p' => frame(PING, 0, 8),
            'S' => frame(SETTINGS, 0, 12),
            _ => unreachable!("{letter}"),
        };
        letters.chars().flat_map(one).collect()
    }

    /// As many requests as may be open, before anything is answered: what a client opens with, and what it sends each.
    const OPENINGS: [(&str, &str, &str); 6] = [
        ("grpc C-core, one write for each call", "SwS", "HwDw"),
        ("grpc C-core, one write for many", "SwS", "HwD"),
        ("grpc-go", "SSw", "HDwpw"),
        ("Chromium", "Sw", "H"),
        ("Firefox of old", "SwPPPPPP", "HwP"),
        ("nghttp", "SPPPPPS", "H"),
    ];

    #[test]
    fn a_full_house_that_waits_for_answers_is_no_flood() {
        for (client, opening, each) in OPENINGS {
            let now = Instant::now();
            let mut meter = meter(now);
            meter.read(&trace(opening), now);
            let first = meter.balance;
            // Many times over, in no time at all.
            for _ in 0..100 {
                for _ in 0..STREAMS {
                    meter.read(&trace(each), now);
                    assert!(!meter.is_over(), "{client}");
                }
                for _ in 0..STREAMS {
                    meter.sent(13);
                    meter.answered();
                    meter.read(&trace("w"), now);
                }
            }
            assert!(meter.balance >= first, "{client}");
        }
    }

    #[test]
    fn a_full_house_may_be_cancelled_at_once() {
        for (client, opening, each) in OPENINGS {
            let now = Instant::now();
            let mut meter = meter(now);
            meter.read(&trace(opening), now);
            meter.read(&trace(&each.repeat(STREAMS as usize)), now);
            ended(&mut meter, STREAMS, Duration::ZERO, now);
            assert!(!meter.is_over(), "{client}: {}", meter.balance);
        }
    }

    /// An endpoint hangs: every call runs into its deadline, and the next one comes.
    #[test]
    fn deadlines_are_no_flood_for_as_long_as_they_go_on() {
        let mut now = Instant::now();
        let mut meter = meter(now);
        for _ in 0..1000 {
            meter.read(&trace(&"HwDw".repeat(STREAMS as usize)), now);
            now += YOUNG;
            ended(&mut meter, STREAMS, YOUNG, now);
            assert!(!meter.is_over());
        }
    }

    /// Any order of beginnings, answers and late cancellations, of clients that send up to four frames for a stream.
    #[test]
    fn no_honest_order_of_things_is_a_flood() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut now = Instant::now();
            let (mut meter, mut open) = (meter(now), 0);
            for _ in 0..20_000 {
                match rng.u8(0..4) {
                    0 | 1 if open < STREAMS => {
                        meter.read(&trace("HwDwP"), now);
                        open += 1;
                    }
                    2 if open > 0 => {
                        meter.answered();
                        open -= 1;
                    }
                    3 if open > 0 => {
                        ended(&mut meter, 1, YOUNG, now);
                        open -= 1;
                    }
                    _ => now += Duration::from_micros(rng.u64(0..100)),
                }
                assert!(!meter.is_over(), "seed {seed}, {open} open");
            }
        }
    }

    #[test]
    fn more_streams_at_once_may_cost_more() {
        let now = Instant::now();
        for (streams, burst) in [(1, 108), (128, 1124), (1000, 8100), (u32::MAX, MOST)] {
            assert_eq!(Meter::new(now, streams).balance, burst);
        }
    }
}
