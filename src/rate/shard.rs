//! A part of a limiter's table: buckets in sets of eight, found by key.
//!
//! Why sets: a lookup is at most eight comparisons, nothing is kept in order of use, and a full bucket, being as good as
//! none, makes room without anybody's sweeping. The table grows only while busy buckets need it. Invariant: a key is in
//! the set its low bits name and nowhere else; there are never more than `MAX_SETS` sets.

use super::bucket::Bucket;

const WAYS: usize = 8;
pub(super) const MAX_SETS: usize = 128;

/// Buckets a shard remembers at most.
pub(super) const MAX_KEYS: usize = WAYS * MAX_SETS;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u64,
    bucket: Bucket,
}

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct Shard {
    /// Sets side by side; a power of two of them, or none yet.
    slots: Vec<Slot>,
}

impl Shard {
    /// The bucket of a key; a full one if it has none. `now` is scaled as the buckets are.
    pub(super) fn bucket(&mut self, key: u64, now: u128) -> &mut Bucket {
        let mut at = self.place(key, now);
        while at.is_none() && self.slots.len() < MAX_KEYS {
            self.grow(now);
            at = self.place(key, now);
        }
        // All are busy: the one that is fullest loses least by starting anew.
        let at = at.unwrap_or_else(|| {
            let set = self.set(key);
            set.clone().min_by_key(|&i| self.slots[i].bucket.full_at()).unwrap_or(set.start)
        });
        let slot = &mut self.slots[at];
        if slot.key != key {
            *slot = Slot { key, bucket: Bucket::default() };
        }
        &mut slot.bucket
    }

    /// Where the key is, or may go without loss.
    fn place(&self, key: u64, now: u128) -> Option<usize> {
        let mut set = self.set(key);
        let is_full = |i: &usize| self.slots[*i].bucket.full_at() <= now;
        set.clone().find(|&i| self.slots[i].key == key).or_else(|| set.find(is_full))
    }

    fn set(&self, key: u64) -> std::ops::Range<usize> {
        let sets = self.slots.len() / WAYS;
        if sets == 0 {
            return 0..0;
        }
        let start = (key as usize & (sets - 1)) * WAYS;
        start..start + WAYS
    }

    /// Twice the sets. What was in one set goes to two, so none can overflow.
    fn grow(&mut self, now: u128) {
        let size = (self.slots.len() * 2).max(WAYS);
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); size]);
        for slot in old.into_iter().filter(|s| s.bucket.full_at() > now) {
            if let Some(at) = self.set(slot.key).find(|&i| self.slots[i].bucket.full_at() == 0) {
                self.slots[at] = slot;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.slots.len()
    }
}
