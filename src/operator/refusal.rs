//! A refusal of the server's in words, in both languages: what it says itself, what to do, and when to try
//! again. Pure.

use std::fmt::Write as _;

use serde_json::Value;

use super::connection::{in_seconds, printable};
use crate::doctor::Words;

/// What `error` of an answer says; `better` stands in the place of the server's own words.
pub(super) fn words(error: &Value, better: Option<Words>) -> Words {
    let Words { mut en, mut zh } = better.unwrap_or_else(|| own_words(error));
    let remedy = |language: &str| {
        let remedy = error["remedy"][language].as_str().map(printable);
        remedy.filter(|remedy| !remedy.is_empty())
    };
    if let Some(remedy) = remedy("en").filter(|remedy| !en.contains(remedy)) {
        let _ = write!(en, "; {remedy}");
    }
    if let Some(remedy) = remedy("zh").filter(|remedy| !zh.contains(remedy)) {
        let _ = write!(zh, "；{remedy}");
    }
    if let Some(seconds) = error["retry_after"].as_u64() {
        let wait = in_seconds(seconds);
        if !en.contains(&wait) {
            let _ = write!(en, "; try again in {wait}");
        }
        // Where there are no words in Chinese, the English ones may have said so.
        if !zh.contains(&format!("{seconds} 秒")) && !zh.contains(&wait) {
            let _ = write!(zh, "；请在 {seconds} 秒后重试");
        }
    }
    for mistake in error["mistakes"].as_array().into_iter().flatten() {
        let part = |name: &str| printable(mistake[name].as_str().unwrap_or_default());
        let line = format!("\n  {}: {}", part("setting"), part("message"));
        en.push_str(&line);
        zh.push_str(&line);
    }
    Words { en, zh }
}

fn own_words(error: &Value) -> Words {
    let text = |name: &str| error[name].as_str().map(printable);
    let en = text("message").unwrap_or_default();
    let of_code = || in_chinese(error["code"].as_str()?).map(str::to_owned);
    let zh = text("message_zh").or_else(of_code).unwrap_or_else(|| en.clone());
    Words { en, zh }
}

/// What a code says, where it always says the same.
fn in_chinese(code: &str) -> Option<&'static str> {
    Some(match code {
        "too_many_wrong_keys" => "此地址发来的错误密钥过多",
        "too_many_waiting" => "等待中的请求过多；请结束一些，或改为不等待",
        "may_not_force" => "只有 request_secret 可以强制换新（force）",
        "may_not_order" => "只有 request_secret 可以执行此操作",
        "config_mistakes" => "配置有错误，未做任何更改",
        "not_reloadable" => "该服务器没有配置文件，或正在关闭",
        "resets_used_up" => "本月的重置次数已用完；当日调用次数在北京时间零点恢复",
        "cooldown" => "该令牌刚刚获取；若稍后仍被拒绝，请再次说明",
        "unchanged" => "上游返回的仍是同一令牌，目前没有新的",
        "busy" => "等待处理的请求过多",
        "timed_out" => "耗时过长，可能仍会完成；请查看服务器日志",
        "shutting_down" => "服务器正在关闭",
        "interrupted" => "换新被中断，请重试",
        "examining" => "已有人发起检查，尚未完成",
        "not_json" => "请求正文应为 JSON",
        "too_large" => "请求正文过大",
        "too_slow" => "请求正文传送过慢",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_told_in_both_languages_with_what_to_do() {
        for (error, better, en, zh) in [
            (
                json!({"code": "upstream", "message": "no DNS", "message_zh": "无法解析",
                    "remedy": {"en": "see to it", "zh": "请检查"}, "retry_after": 30}),
                None,
                "no DNS; see to it; try again in 30 seconds",
                "无法解析；请检查；请在 30 秒后重试",
            ),
            (
                json!({"code": "upstream", "message": "no DNS; see to it; try again in 1 second",
                    "message_zh": "无法解析；请检查；1 秒后重试",
                    "remedy": {"en": "see to it", "zh": "请检查"}, "retry_after": 1}),
                None,
                "no DNS; see to it; try again in 1 second",
                "无法解析；请检查；1 秒后重试",
            ),
            // Of a server without words in Chinese.
            (
                json!({"code": "upstream", "message": "no DNS; try again in 30 seconds",
                    "remedy": null, "retry_after": 30}),
                None,
                "no DNS; try again in 30 seconds",
                "no DNS; try again in 30 seconds",
            ),
            (
                json!({"code": "may_not_order", "message": "this is for the request_secret alone"}),
                None,
                "this is for the request_secret alone",
                "只有 request_secret 可以执行此操作",
            ),
            (
                json!({"code": "busy", "message": "a\u{1b}b", "retry_after": 5}),
                None,
                "a b; try again in 5 seconds",
                "等待处理的请求过多；请在 5 秒后重试",
            ),
            (
                json!({"code": "config_mistakes", "message": "nothing has changed",
                    "mistakes": [{"setting": "http.bind", "message": "is\nnone"}]}),
                None,
                "nothing has changed\n  http.bind: is none",
                "配置有错误，未做任何更改\n  http.bind: is none",
            ),
            (
                json!({"code": "no_token", "message": "x", "message_zh": "y", "retry_after": 5}),
                Some(Words { en: "none".into(), zh: "没有".into() }),
                "none; try again in 5 seconds",
                "没有；请在 5 秒后重试",
            ),
        ] {
            let told = words(&error, better);
            assert_eq!((&*told.en, &*told.zh), (en, zh), "{error}");
        }
    }
}
