//! Large values that are made where they stay. `Box::new` makes its value on the stack first, takes memory then, and copies
//! all of the value there, for a future also the room that it will only use later.

use std::pin::Pin;

/// A value in a box.
#[inline]
pub fn boxed<T>(make: impl FnOnce() -> T) -> Box<T> {
    let room = Box::new_uninit();
    Box::write(room, make())
}

/// A future in a box.
#[inline]
pub fn pinned<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(boxed(make))
}
