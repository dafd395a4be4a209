//! A direction of a tunnel, driven by hand: frames in pieces, and the close at its place.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::proxy::ws_frames::close;

/// A flow between two pipes: where it reads, where it writes, and their far ends.
struct Setup {
    flow: Flow,
    reader: DuplexStream,
    writer: DuplexStream,
    speaker: DuplexStream,
    listener: DuplexStream,
}

fn setup(room: usize) -> Setup {
    let ((reader, speaker), (writer, listener)) = (tokio::io::duplex(1 << 20), tokio::io::duplex(room));
    Setup { flow: Flow::new(), reader, writer, speaker, listener }
}

impl Setup {
    /// Until it waits.
    fn poll(&mut self) -> Poll<io::Result<()>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.flow.poll(&mut cx, &mut self.reader, &mut self.writer)
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.speaker.write_all(bytes).await.unwrap();
        assert!(self.poll().is_pending());
    }

    /// What the other side has got by now.
    async fn heard(mut self) -> Vec<u8> {
        drop(self.writer);
        let mut all = Vec::new();
        self.listener.read_to_end(&mut all).await.unwrap();
        all
    }
}

fn frame(is_last: bool, opcode: u8, length: u16) -> Vec<u8> {
    let mut frame = vec![u8::from(is_last) << 7 | opcode, 126];
    frame.extend(length.to_be_bytes());
    frame.resize(4 + usize::from(length), 0x88);
    frame
}

#[tokio::test]
async fn a_close_waits_for_the_end_of_the_frame() {
    let mut s = setup(1 << 20);
    let message = frame(true, 2, 60_000);
    s.say(&message[..10_000]).await;
    s.flow.close(close(1001, None));
    s.say(&message[10_000..59_999]).await;
    // The end, and the beginning of what nobody will see.
    let mut rest = message[59_999..].to_vec();
    rest.extend(frame(true, 1, 100));
    s.say(&rest).await;
    s.say(&frame(true, 1, 200)).await;
    assert!(!s.flow.is_closed(), "it has not closed itself");
    s.say(&close(1001, None)).await;
    assert!(s.flow.is_closed());
    assert_eq!(s.heard().await, [message, close(1001, None)].concat());
}

#[tokio::test]
async fn a_message_of_fragments_is_whole_unless_there_is_no_time() {
    for is_hurried in [false, true] {
        let mut s = setup(1 << 20);
        let (first, ping, last) = (frame(false, 1, 10), frame(true, 9, 3), frame(true, 0, 10));
        s.say(&first).await;
        s.flow.close(close(1012, None));
        s.say(&ping).await;
        if is_hurried {
            s.flow.hurry();
        }
        s.say(&last).await;
        let wanted = if is_hurried { vec![first, ping] } else { vec![first, ping, last] };
        assert_eq!(s.heard().await, [wanted.concat(), close(1012, None)].concat());
    }
}

#[tokio::test]
async fn nothing_follows_a_close_of_its_own() {
    for is_before in [true, false] {
        let mut s = setup(1 << 20);
        // Amid a message: ours has no place before theirs comes.
        let (half, theirs) = (frame(false, 1, 10), close(1000, Some([1, 2, 3, 4])));
        s.say(&half).await;
        if is_before {
            s.say(&theirs).await;
            s.flow.close(close(1001, Some([0; 4])));
        } else {
            s.flow.close(close(1001, Some([0; 4])));
            s.say(&theirs).await;
        }
        s.flow.hurry();
        assert!(s.poll().is_pending() && s.flow.is_closed());
        assert_eq!(s.heard().await, [half, theirs].concat());
    }
}

#[tokio::test]
async fn a_side_that_ends_is_closed_for_it_and_a_clean_end_goes_through() {
    for is_told in [true, false] {
        let mut s = setup(1 << 20);
        s.say(&frame(false, 1, 5)).await;
        if is_told {
            s.flow.close(close(1001, None));
            s.flow.hurry();
        }
        s.speaker.shutdown().await.unwrap();
        assert!(matches!(s.poll(), Poll::Ready(Ok(()))));
        assert!(s.flow.is_closed() && matches!(s.poll(), Poll::Ready(Ok(()))));
        let said = if is_told { close(1001, None) } else { Vec::new() };
        assert_eq!(s.heard().await, [frame(false, 1, 5), said].concat());
    }
}

#[tokio::test]
async fn a_peer_that_takes_nothing_gets_the_close_when_it_does() {
    let mut s = setup(10);
    let message = frame(true, 2, 100);
    s.say(&message).await;
    s.flow.close(close(1001, None));
    assert!(s.poll().is_pending() && !s.flow.is_closed());
    let mut got = vec![0; message.len() + 4];
    let read = s.listener.read_exact(&mut got);
    let flow = std::future::poll_fn(|cx| s.flow.poll(cx, &mut s.reader, &mut s.writer));
    tokio::select! {
        read = read => drop(read.unwrap()),
        _ = flow => unreachable!("nobody has ended"),
    }
    assert_eq!(got, [message, close(1001, None)].concat());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whenever the order comes and however the bytes are cut: what is heard is a whole number of the speaker's
    /// frames, and then the close.
    #[test]
    fn the_close_is_always_between_frames(
        lengths in prop::collection::vec((0u16..20_000, any::<bool>()), 1..6),
        cuts in prop::collection::vec(1usize..9000, 1..20),
        when in 0usize..30,
        is_hurried in any::<bool>(),
    ) {
        let frames: Vec<_> = lengths.iter().map(|(length, is_last)| (frame(*is_last, 2, *length), *is_last)).collect();
        let bytes = frames.iter().map(|(frame, _)| &frame[..]).collect::<Vec<_>>().concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (heard, told_at) = runtime.block_on(async {
            let mut s = setup(1 << 20);
            let (mut at, mut told_at) = (0, None);
            for (turn, cut) in cuts.iter().cycle().enumerate() {
                if turn == when {
                    told_at = Some(at);
                    s.flow.close(close(1001, None));
                    if is_hurried {
                        s.flow.hurry();
                    }
                }
                let end = bytes.len().min(at + cut);
                s.say(&bytes[at..end]).await;
                at = end;
                if at == bytes.len() {
                    break;
                }
            }
            (s.heard().await, told_at)
        });
        let Some(told_at) = told_at else {
            prop_assert_eq!(heard, bytes);
            return Ok(());
        };
        // The first place that is not before the order.
        let mut places = vec![(0, true)];
        for (frame, is_last) in &frames {
            places.push((places.last().unwrap().0 + frame.len(), *is_last));
        }
        let place = places.iter().find(|(place, is_between)| *place >= told_at && (is_hurried || *is_between));
        match place {
            Some((place, _)) => prop_assert_eq!(heard, [&bytes[..*place], &close(1001, None)].concat()),
            None => prop_assert_eq!(heard, bytes),
        }
    }
}
