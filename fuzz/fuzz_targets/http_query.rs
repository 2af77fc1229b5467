//! See `fuzzing::http_query`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wechat_token_server::fuzzing;

fuzz_target!(|input: &[u8]| fuzzing::http_query(input));
