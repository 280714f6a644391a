//! HTTP doors: translate, hold no state.
