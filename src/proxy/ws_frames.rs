//! Where the frames of one direction of a WebSocket begin and end (RFC 6455 section 5.2). Pure.
//!
//! It only reads heads, of which it keeps what has come so far, and counts payload; nothing is buffered or changed, so
//! that following a tunnel costs a few instructions for each frame. Invariant: a place is a boundary exactly if a whole
//! number of frames lies before it, however the bytes were cut into pieces.

/// The longest head: two bytes, a length of 64 bits, a mask.
const HEAD: usize = 14;
const FIN: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const CLOSE: u8 = 0x8;

/// See the file's head.
#[derive(Clone, Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD],
    /// Bytes of the next head that are here.
    have: usize,
    /// Payload of this frame that is still to come.
    left: u64,
    /// Between the fragments of a message.
    is_in_message: bool,
    has_close: bool,
}

impl Frames {
    /// Follows all of `bytes`.
    pub(super) fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.next(bytes)..];
        }
    }

    /// Follows `bytes` to the end of the frame they are of, at most; returns how many those were. If all, it may be
    /// amid the frame still.
    pub(super) fn next(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        if self.left == 0 {
            at = self.take_head(bytes);
        }
        let payload = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
        self.left -= payload as u64;
        at + payload
    }

    /// Completes the head; returns how many bytes that took.
    fn take_head(&mut self, bytes: &[u8]) -> usize {
        let before = self.have;
        for (i, byte) in bytes.iter().enumerate() {
            self.head[self.have] = *byte;
            self.have += 1;
            if self.have >= 2 && self.have == self.head_length() {
                self.begin();
                return i + 1;
            }
        }
        self.have - before
    }

    /// Of this head, whose first two bytes are here.
    fn head_length(&self) -> usize {
        let length = match self.head[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if self.head[1] & MASKED != 0 { 4 } else { 0 }
    }

    /// The head is whole.
    fn begin(&mut self) {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        self.left = match self.head[1] & !MASKED {
            126 => number(&self.head[2..4]),
            127 => number(&self.head[2..10]),
            short => u64::from(short),
        };
        self.have = 0;
        let opcode = self.head[0] & OPCODE;
        self.has_close |= opcode == CLOSE;
        // Control frames may stand between the fragments of a message.
        if opcode < CLOSE {
            self.is_in_message = self.head[0] & FIN == 0;
        }
    }

    /// Nothing of a frame is under way.
    pub(super) fn is_boundary(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Nor of a message.
    pub(super) fn is_between_messages(&self) -> bool {
        self.is_boundary() && !self.is_in_message
    }

    /// A close frame has begun: this side says nothing more (RFC 6455 section 5.5.1).
    pub(super) fn has_close(&self) -> bool {
        self.has_close
    }
}

/// A close frame with a code and no text, masked if it goes to a server (RFC 6455 section 5.1).
pub(super) fn close(code: u16, mask: Option<[u8; 4]>) -> Vec<u8> {
    let payload = code.to_be_bytes();
    let mut frame = vec![FIN | CLOSE, payload.len() as u8];
    match mask {
        None => frame.extend(payload),
        Some(mask) => {
            frame[1] |= MASKED;
            frame.extend(mask);
            frame.extend(payload.iter().zip(mask).map(|(byte, key)| byte ^ key));
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as bytes, and where a model that knows its length says it ends.
    #[derive(Clone, Debug)]
    struct Made {
        is_last: bool,
        opcode: u8,
        mask: bool,
        length: usize,
        /// Lengths may be said with more bytes than they need: not allowed, but it must not lead us astray.
        width: usize,
    }

    impl Made {
        fn bytes(&self) -> Vec<u8> {
            let width = match self.length {
                0..=125 => self.width,
                126..=0xffff => self.width.max(2),
                _ => 8,
            };
            let mask = if self.mask { MASKED } else { 0 };
            let mut bytes = vec![if self.is_last { FIN } else { 0 } | self.opcode];
            match width {
                0 => bytes.push(mask | self.length as u8),
                2 => {
                    bytes.push(mask | 126);
                    bytes.extend((self.length as u16).to_be_bytes());
                }
                _ => {
                    bytes.push(mask | 127);
                    bytes.extend((self.length as u64).to_be_bytes());
                }
            }
            if self.mask {
                bytes.extend([0x88, 0x02, 0x88, 0x02]);
            }
            // Payload that looks like close frames.
            bytes.extend([0x88, 0x02, 0x03].iter().cycle().take(self.length));
            bytes
        }
    }

    fn made() -> impl Strategy<Value = Made> {
        let length = prop_oneof![0usize..6, 120usize..130, 65_530usize..65_540];
        let opcode = prop_oneof![5 => 0u8..=2, 2 => 9u8..=10, 1 => Just(CLOSE)];
        let width = prop_oneof![8 => Just(0usize), 1 => Just(2usize), 1 => Just(8usize)];
        (any::<bool>(), opcode, any::<bool>(), length, width).prop_map(|(is_last, opcode, mask, length, width)| Made {
            is_last: is_last || opcode >= CLOSE,
            opcode,
            mask,
            length,
            width,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However the bytes are cut, boundaries, messages and closes are where the model has them.
        #[test]
        fn boundaries_are_where_frames_end(
            frames in prop::collection::vec(made(), 1..6),
            cuts in prop::collection::vec(1usize..9000, 1..20),
        ) {
            let (mut bytes, mut ends) = (Vec::new(), vec![(0, false, false)]);
            for frame in &frames {
                let (_, in_message, has_close) = *ends.last().unwrap();
                bytes.extend(frame.bytes());
                let in_message = if frame.opcode < CLOSE { !frame.is_last } else { in_message };
                ends.push((bytes.len(), in_message, has_close || frame.opcode == CLOSE));
            }
            let (mut seen, mut stepped, mut at) = (Frames::default(), Frames::default(), 0);
            let mut boundaries = vec![0];
            for cut in cuts.iter().cycle() {
                let piece = &bytes[at..bytes.len().min(at + cut)];
                seen.see(piece);
                let mut rest = piece;
                while !rest.is_empty() {
                    let n = stepped.next(rest);
                    prop_assert!(n > 0);
                    rest = &rest[n..];
                    if stepped.is_boundary() {
                        boundaries.push(at + piece.len() - rest.len());
                    }
                }
                at += piece.len();
                let end = ends.iter().find(|end| end.0 == at);
                prop_assert_eq!(seen.is_boundary(), end.is_some());
                if let Some((_, in_message, has_close)) = end {
                    prop_assert_eq!((seen.is_between_messages(), seen.has_close()), (!in_message, *has_close));
                }
                if at == bytes.len() {
                    break;
                }
            }
            prop_assert_eq!(boundaries, ends.iter().map(|end| end.0).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_followed_without_a_stop(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (mut whole, mut single) = (Frames::default(), Frames::default());
            whole.see(&bytes);
            bytes.iter().for_each(|byte| single.see(&[*byte]));
            prop_assert_eq!(whole.is_boundary(), single.is_boundary());
            prop_assert_eq!(whole.has_close(), single.has_close());
        }
    }

    #[test]
    fn a_close_frame_of_ours_is_one() {
        assert_eq!(close(1001, None), [0x88, 2, 0x03, 0xe9]);
        assert_eq!(close(1012, Some([1, 2, 3, 4])), [0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xf4 ^ 2]);
        for frame in [close(1001, None), close(1012, Some([9; 4]))] {
            let mut frames = Frames::default();
            frames.see(&frame);
            assert!(frames.is_between_messages() && frames.has_close());
        }
    }
}
