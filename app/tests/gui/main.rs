//! The app without a window: its pages as pictures, its keys and buttons, and a comparison with the real engine.

#![cfg(feature = "gui")]

mod answers;
mod attention;
mod compare;
mod engine;
mod kernels;
mod pages;
mod quality;
mod screen;
mod scripted;
