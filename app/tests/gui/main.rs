//! The app without a window: its pages as pictures, its keys and buttons, and a comparison with the real engine.

#![cfg(feature = "gui")]

mod engine;
mod pages;
mod scripted;
mod use_it;
