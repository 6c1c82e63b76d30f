//! The requests that are under way at the process, found by the number that it knows them by.

use super::{mailbox::Mailbox, raw_id::RawId};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// A number is a generation above an index: 52 bits, so that every JSON reader keeps it exact.
const INDEX_BITS: u32 = 20;
const NONE: u32 = u32::MAX;

/// One request under way.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) owner: Arc<Mailbox>,
    /// What the caller called it.
    pub(super) id: RawId,
    /// The caller's progress token.
    pub(super) token: Option<RawId>,
    pub(super) kind: CallKind,
}

/// What its answer is treated as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    Plain,
    /// `subscriptions/listen`: notifications and the result name it.
    Listen,
    /// `initialize` of an exclusive session.
    Initialize,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The process or the channel is gone.
    Closed,
    /// As many are under way as there are numbers.
    Full,
}

/// The head of a channel's list of calls. It is only touched under the lock that the calls are behind.
#[derive(Debug)]
pub(super) struct CallList(AtomicU32);

impl Default for CallList {
    fn default() -> Self {
        Self(AtomicU32::new(NONE))
    }
}

impl CallList {
    fn head(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn set_head(&self, index: u32) {
        self.0.store(index, Ordering::Relaxed);
    }

    fn is_empty(&self) -> bool {
        self.head() == NONE
    }
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// In use: the neighbours in the owner's list. Free: `next` is the next free slot.
    next: u32,
    previous: u32,
    call: Option<Call>,
}

/// All calls of one process, and its open channels.
#[derive(Debug)]
pub(super) struct Pending {
    slots: Vec<Slot>,
    free: u32,
    live: usize,
    closed: bool,
    first_generation: u32,
    pub(super) channels: HashMap<u64, Arc<Mailbox>>,
}

impl Pending {
    /// Nothing yet; numbers begin with the generation `from`.
    pub(super) fn new(from: u32) -> Self {
        let first_generation = from.max(1);
        Self { slots: Vec::new(), free: NONE, live: 0, closed: false, first_generation, channels: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// How many calls are to come to an end by themselves: all but subscriptions.
    pub(super) fn ending(&self) -> usize {
        let calls = self.slots.iter().filter_map(|slot| slot.call.as_ref());
        calls.filter(|call| call.kind != CallKind::Listen).count()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Registers a call and gives it its number.
    pub(super) fn insert(&mut self, call: Call) -> Result<u64, Refused> {
        if self.closed || call.owner.has_ended() {
            return Err(Refused::Closed);
        }
        let index = if self.free == NONE {
            let index = u32::try_from(self.slots.len()).ok().filter(|index| *index < 1 << INDEX_BITS);
            let index = index.ok_or(Refused::Full)?;
            self.slots.push(Slot { generation: self.first_generation, next: NONE, previous: NONE, call: None });
            index
        } else {
            let index = self.free;
            self.free = self.slots[index as usize].next;
            index
        };
        let head = call.owner.calls.head();
        call.owner.calls.set_head(index);
        if let Some(first) = self.slots.get_mut(head as usize) {
            first.previous = index;
        }
        let slot = &mut self.slots[index as usize];
        slot.next = head;
        slot.previous = NONE;
        slot.call = Some(call);
        self.live += 1;
        Ok(u64::from(slot.generation) << INDEX_BITS | u64::from(index))
    }

    /// The call with this number, if it is still under way.
    pub(super) fn get(&self, number: u64) -> Option<&Call> {
        let slot = self.slots.get(index_of(number))?;
        slot.call.as_ref().filter(|_| u64::from(slot.generation) == number >> INDEX_BITS)
    }

    /// Takes a call out; its number is not given out again for four thousand million calls.
    pub(super) fn remove(&mut self, number: u64) -> Option<Call> {
        self.get(number)?;
        let index = index_of(number);
        let slot = self.slots.get_mut(index)?;
        let call = slot.call.take()?;
        let (next, previous) = (slot.next, slot.previous);
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        slot.next = self.free;
        self.free = u32::try_from(index).unwrap_or(NONE);
        self.live -= 1;
        match self.slots.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => call.owner.calls.set_head(next),
        }
        if let Some(next) = self.slots.get_mut(next as usize) {
            next.previous = previous;
        }
        Some(call)
    }

    /// Whether a channel has no calls.
    pub(super) fn is_idle(&self, owner: &Mailbox) -> bool {
        owner.calls.is_empty()
    }

    /// The numbers of a channel's calls, the latest first.
    pub(super) fn numbers_of(&self, owner: &Mailbox) -> Vec<u64> {
        self.calls_of(owner).map(|(number, _)| number).collect()
    }

    /// The number of the channel's call that the caller gave this id.
    pub(super) fn find(&self, owner: &Mailbox, id: &str) -> Option<u64> {
        self.calls_of(owner).find(|(_, call)| call.id.is(id)).map(|(number, _)| number)
    }

    fn calls_of<'a>(&'a self, owner: &Mailbox) -> impl Iterator<Item = (u64, &'a Call)> {
        let mut index = owner.calls.head();
        std::iter::from_fn(move || {
            let slot = self.slots.get(index as usize)?;
            let number = u64::from(slot.generation) << INDEX_BITS | u64::from(index);
            index = slot.next;
            Some((number, slot.call.as_ref()?))
        })
    }

    /// Takes nothing more in and gives back what was under way and who listens.
    pub(super) fn close(&mut self) -> (Vec<Call>, Vec<Arc<Mailbox>>) {
        self.closed = true;
        self.live = 0;
        self.free = NONE;
        let calls: Vec<Call> = std::mem::take(&mut self.slots).into_iter().filter_map(|slot| slot.call).collect();
        for call in &calls {
            call.owner.calls.set_head(NONE);
        }
        (calls, self.channels.drain().map(|(_, mailbox)| mailbox).collect())
    }
}

fn index_of(number: u64) -> usize {
    usize::try_from(number & ((1 << INDEX_BITS) - 1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Call, CallKind, Pending, RawId, Refused};
    use crate::runtime::stdio::mailbox::Mailbox;
    use proptest::prelude::*;
    use std::{collections::HashMap, sync::Arc};

    fn call(owner: &Arc<Mailbox>, id: &str) -> Call {
        Call { owner: Arc::clone(owner), id: RawId::new(id), token: None, kind: CallKind::Plain }
    }

    #[test]
    fn a_number_is_not_valid_again_when_its_place_is_reused() {
        let owner = Arc::new(Mailbox::new(0, 1, 1));
        let mut pending = Pending::new(1);
        let first = pending.insert(call(&owner, "1")).unwrap();
        assert!(pending.remove(first).is_some());
        let second = pending.insert(call(&owner, "2")).unwrap();
        assert_ne!(first, second);
        assert!(pending.remove(first).is_none());
        assert!(pending.get(second).is_some());
        assert!(pending.get(u64::MAX).is_none() && pending.get(0).is_none());
        drop(pending.close());
        assert_eq!(pending.insert(call(&owner, "3")), Err(Refused::Closed));
    }

    #[test]
    fn numbers_begin_where_they_are_told_to() {
        let owner = Arc::new(Mailbox::new(0, 1, 1));
        let (mut first, mut second) = (Pending::new(1), Pending::new(u32::MAX >> 1));
        let late = first.insert(call(&owner, "1")).unwrap();
        let other = Arc::new(Mailbox::new(0, 1, 1));
        let number = second.insert(call(&other, "1")).unwrap();
        assert!(number < 1 << 53);
        assert!(second.remove(late).is_none(), "an answer to what an earlier stream asked");
        assert!(second.remove(number).is_some());
    }

    proptest! {
        #[test]
        fn lists_hold_what_each_channel_has_under_way(steps in prop::collection::vec((0usize..3, any::<bool>(), any::<prop::sample::Index>()), 0..200)) {
            let owners: Vec<_> = (0..3).map(|number| Arc::new(Mailbox::new(number, 1, 1))).collect();
            let mut pending = Pending::new(1);
            let mut model: HashMap<u64, (usize, String)> = HashMap::new();
            for (step, (owner, insert, which)) in steps.into_iter().enumerate() {
                if insert || model.is_empty() {
                    let number = pending.insert(call(&owners[owner], &step.to_string())).unwrap();
                    prop_assert!(number < 1 << 53);
                    prop_assert!(model.insert(number, (owner, step.to_string())).is_none());
                } else {
                    let mut numbers: Vec<u64> = model.keys().copied().collect();
                    numbers.sort_unstable();
                    let number = *which.get(&numbers);
                    let (_, id) = model.remove(&number).unwrap();
                    let removed = pending.remove(number).unwrap();
                    prop_assert!(removed.id.is(&id));
                    prop_assert!(pending.remove(number).is_none());
                }
                prop_assert_eq!(pending.len(), model.len());
                for (index, owner) in owners.iter().enumerate() {
                    let mut listed = pending.numbers_of(owner);
                    listed.sort_unstable();
                    let mut expected: Vec<u64> = model.iter().filter(|(_, call)| call.0 == index).map(|(number, _)| *number).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(pending.is_idle(owner), expected.is_empty());
                    prop_assert_eq!(listed, expected);
                }
                for (number, (owner, id)) in &model {
                    prop_assert_eq!(pending.find(&owners[*owner], id), Some(*number));
                }
            }
        }
    }

    impl PartialEq for Call {
        fn eq(&self, other: &Self) -> bool {
            Arc::ptr_eq(&self.owner, &other.owner) && self.id.as_bytes() == other.id.as_bytes()
        }
    }
}
