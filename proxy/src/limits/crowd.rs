//! Connections: how many there are, in total and of each peer.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};

use crate::limits::{
    pressure::Pressure,
    share::{Holder, Sharing, may_have},
};

/// Those who are in.
#[derive(Debug)]
pub struct Crowd {
    most: usize,
    sharing: Sharing,
    count: Cell<usize>,
    of_each: RefCell<HashMap<Holder, usize>>,
}

/// One who is in; out again when this is dropped.
#[derive(Debug)]
pub struct Member {
    crowd: Rc<Crowd>,
    holder: Holder,
}

/// Why one more does not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowded {
    /// There are as many as there may be.
    Full,
    /// This one has as many as one may have.
    OfOne,
    /// There is too little memory for any.
    Pressure,
}

impl Crowd {
    /// At most `most`, shared by `sharing`.
    #[must_use]
    pub fn new(most: usize, sharing: Sharing) -> Rc<Self> {
        Rc::new(Self { most, sharing, count: Cell::new(0), of_each: RefCell::default() })
    }

    /// One more of `holder`.
    ///
    /// # Errors
    /// Why not.
    pub fn enter(self: &Rc<Self>, holder: Holder) -> Result<Member, Crowded> {
        if Pressure::now() == Pressure::Full {
            return Err(Crowded::Pressure);
        }
        let of_each = self.of_each.borrow();
        let held = of_each.get(&holder).copied().unwrap_or(0);
        let count = self.count.get();
        if !may_have(held, count, self.most, self.sharing) {
            return Err(if count < self.most { Crowded::OfOne } else { Crowded::Full });
        }
        drop(of_each);
        Ok(self.enter_for(holder))
    }

    /// Has `holder` so little that others may be asked to leave for it? A flood from one place displaces nobody.
    #[must_use]
    pub fn has_little(&self, holder: &Holder) -> bool {
        self.of_each.borrow().get(holder).is_none_or(|held| held * 2 < self.most)
    }

    /// One more of `holder`, for one that is about to leave.
    pub fn enter_for(self: &Rc<Self>, holder: Holder) -> Member {
        self.count.set(self.count.get() + 1);
        *self.of_each.borrow_mut().entry(holder.clone()).or_insert(0) += 1;
        Member { crowd: Rc::clone(self), holder }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.get()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let Crowd { count, of_each, .. } = &*self.crowd;
        count.set(count.get().saturating_sub(1));
        let mut of_each = of_each.borrow_mut();
        // Only who is in is remembered.
        if let Some(held) = of_each.get_mut(&self.holder) {
            *held -= 1;
            if *held == 0 {
                of_each.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(last: u8) -> Holder {
        Holder::Address([10, 0, 0, last].into())
    }

    #[test]
    fn one_peer_leaves_room_for_others_and_all_together_have_an_end() {
        let crowd = Crowd::new(3, Sharing::AtMost(2));

        let held = [crowd.enter(of(1)).unwrap(), crowd.enter(of(1)).unwrap()];
        assert_eq!(crowd.enter(of(1)).unwrap_err(), Crowded::OfOne);
        let third = crowd.enter(of(2)).unwrap();
        assert_eq!(crowd.enter(of(3)).unwrap_err(), Crowded::Full);

        drop(third);
        assert!(crowd.enter(of(3)).is_ok());
        drop(held);
        assert_eq!(crowd.count(), 0);
        assert!(crowd.of_each.borrow().is_empty());
    }
}
