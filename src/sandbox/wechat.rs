//! Requests as WeChat takes them and answers as it words them, on both sides of the model.
//! No sockets, no faults.

use std::net::IpAddr;
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::sandbox::endpoint::Endpoint;
use crate::sandbox::model::{Caller, GRANT_TYPE, Grant, Model};
use crate::sandbox::parameters::Parameters;
use crate::sandbox::refusal::Refusal;

/// A request, taken apart.
pub(super) struct Request {
    /// What it asks.
    pub(super) endpoint: Endpoint,
    /// Whether its method is POST. `token` and `getticket` take any method, as SDKs use both.
    pub(super) is_post: bool,
    /// Its query string.
    pub(super) parameters: Parameters,
    /// Its body.
    pub(super) body: Bytes,
    /// Where it comes from.
    pub(super) address: IpAddr,
}

/// A success, by the form of its answer.
pub(super) enum Success {
    /// Of `token` and `stable_token`: no errcode.
    AccessToken(Grant),
    /// Of `getticket`: errcode 0.
    Ticket(Grant),
    /// Of `getcallbackip`.
    Addresses,
    /// Of `clear_quota`: errcode 0 and nothing else.
    Done,
}

/// The JSON body of `stable_token` and `clear_quota`. Unknown fields are let pass.
#[derive(Deserialize, Default)]
struct JsonRequest {
    grant_type: Option<String>,
    appid: Option<String>,
    secret: Option<String>,
    appsecret: Option<String>,
    #[serde(default)]
    force_refresh: bool,
}

/// Lets the model answer a request.
pub(super) fn ask(
    model: &mut Model,
    request: &Request,
    now: SystemTime,
) -> Result<Success, Refusal> {
    let access_token = request.parameters.get("access_token");
    match request.endpoint {
        Endpoint::Token => token(model, request, now),
        Endpoint::StableToken => stable_token(model, request, now),
        Endpoint::Ticket => {
            model.ticket(access_token, request.parameters.get("type"), now).map(Success::Ticket)
        }
        Endpoint::CallbackIp => model.callback_ip(access_token, now).map(|()| Success::Addresses),
        Endpoint::ClearQuota => clear_quota(model, request, now),
        Endpoint::Unknown => Err(Refusal::of(40066)),
    }
}

fn token(model: &mut Model, request: &Request, now: SystemTime) -> Result<Success, Refusal> {
    let parameters = &request.parameters;
    let caller = Caller {
        grant_type: parameters.get("grant_type"),
        appid: parameters.get("appid"),
        secret: parameters.get("secret"),
        address: request.address,
    };
    model.token(caller, now).map(Success::AccessToken)
}

fn stable_token(model: &mut Model, request: &Request, now: SystemTime) -> Result<Success, Refusal> {
    let said = json_request(request)?;
    let caller = Caller {
        grant_type: present(&said.grant_type),
        appid: present(&said.appid),
        secret: present(&said.secret),
        address: request.address,
    };
    model.stable_token(caller, said.force_refresh, now).map(Success::AccessToken)
}

fn clear_quota(model: &mut Model, request: &Request, now: SystemTime) -> Result<Success, Refusal> {
    // WeChat's documents have the fields in the body, their examples in the query string.
    let in_query = request.is_post && request.parameters.get("appid").is_some();
    let said = match json_request(request) {
        Err(_) if in_query => JsonRequest::default(),
        said => said?,
    };
    let caller = Caller {
        grant_type: Some(GRANT_TYPE),
        appid: request.parameters.get("appid").or(present(&said.appid)),
        secret: request.parameters.get("appsecret").or(present(&said.appsecret)),
        address: request.address,
    };
    model.clear_quota(caller, now).map(|()| Success::Done)
}

/// The account that a request is about. One that there is: a client's text is not kept.
pub(super) fn account(model: &Model, request: &Request) -> Option<Box<str>> {
    let parameters = &request.parameters;
    if let Some(access_token) = parameters.get("access_token") {
        return model.owner(access_token).map(Into::into);
    }
    let said = json_request(request).unwrap_or_default();
    let appid = parameters.get("appid").or(present(&said.appid))?;
    model.account(appid).map(|account| account.appid().into())
}

fn json_request(request: &Request) -> Result<JsonRequest, Refusal> {
    if !request.is_post {
        return Err(Refusal::of(43002));
    }
    if request.body.is_empty() {
        return Err(Refusal::of(44002));
    }
    serde_json::from_slice(&request.body).map_err(|_| Refusal::of(47001))
}

fn present(field: &Option<String>) -> Option<&str> {
    field.as_deref().filter(|text| !text.is_empty())
}

/// Every answer's JSON, in WeChat's order of the fields.
#[derive(Serialize, Default)]
struct JsonAnswer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    errcode: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errmsg: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_list: Option<&'a [&'a str]>,
}

/// Words an outcome; `rid` is the request's id, which ends the errmsg of a refusal.
pub(super) fn word(result: &Result<Success, Refusal>, rid: &str) -> Bytes {
    let ok = JsonAnswer { errcode: Some(0), errmsg: Some("ok"), ..JsonAnswer::default() };
    let errmsg;
    let answer = match result {
        Ok(Success::AccessToken(grant)) => JsonAnswer {
            access_token: Some(grant.value.expose()),
            expires_in: Some(grant.expires_in.as_secs()),
            ..JsonAnswer::default()
        },
        Ok(Success::Ticket(grant)) => JsonAnswer {
            ticket: Some(grant.value.expose()),
            expires_in: Some(grant.expires_in.as_secs()),
            ..ok
        },
        // Addresses of the documentation range: nobody shall talk to them.
        Ok(Success::Addresses) => {
            JsonAnswer { ip_list: Some(&["192.0.2.1", "192.0.2.2"]), ..JsonAnswer::default() }
        }
        Ok(Success::Done) => ok,
        Err(refusal) => {
            errmsg = format!("{} rid: {rid}", refusal.errmsg());
            JsonAnswer {
                errcode: Some(refusal.code),
                errmsg: Some(&errmsg),
                ..JsonAnswer::default()
            }
        }
    };
    serde_json::to_vec(&answer).expect("text and numbers always have a JSON form").into()
}

/// The fields of a worded answer, for changing them.
pub(super) fn fields(answer: &Bytes) -> Map<String, Value> {
    serde_json::from_slice(answer).expect("`word` writes a JSON object")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::account::Account;
    use crate::sandbox::settings::Settings;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    const NOW: u64 = 1_767_196_800;

    fn check(model: &mut Model, method: &str, target: &str, body: &str, expected: &str) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Request {
            endpoint: Endpoint::at(path),
            is_post: method == "POST",
            parameters: Parameters::parse(query),
            body: Bytes::copy_from_slice(body.as_bytes()),
            address: Ipv4Addr::LOCALHOST.into(),
        };
        let result = ask(model, &request, SystemTime::UNIX_EPOCH + Duration::from_secs(NOW));
        let answer = word(&result, "1-2-3");
        let answer = str::from_utf8(&answer).unwrap();
        // `*` in what is expected stands for a value.
        let (start, end) = expected.split_once('*').unwrap_or((expected, ""));
        assert!(answer.starts_with(start) && answer.ends_with(end), "{method} {target}: {answer}");
        assert!(expected.contains('*') || answer == expected, "{method} {target}: {answer}");
    }

    #[test]
    fn answers_read_as_those_of_wechat() {
        let mut model = Model::new(Settings::default(), [Account::new("wx0", "s0")], 7);
        let token = model
            .token(Caller::new("wx0", "s0"), SystemTime::UNIX_EPOCH + Duration::from_secs(NOW))
            .unwrap();
        let with_token = |path: &str| format!("{path}access_token={}", token.value.expose());
        let ticket = with_token("/cgi-bin/ticket/getticket?type=jsapi&");
        let callback = with_token("/cgi-bin/getcallbackip?");
        let grant = "grant_type=client_credential";
        let of = |code: i32, words: &str| {
            format!(r#"{{"errcode":{code},"errmsg":"{words} rid: 1-2-3"}}"#)
        };
        let json = |fields: &str| format!(r#"{{"grant_type":"client_credential"{fields}}}"#);
        let good = r#"{"access_token":"*","expires_in":7200}"#;
        for (method, target, body, expected) in [
            ("GET", &*format!("/cgi-bin/token?{grant}&appid=wx0&secret=s0&more=1"), "", good),
            ("POST", &format!("//cgi-bin/token?{grant}&appid=wx0&secret=s0"), "", good),
            ("GET", &format!("/cgi-bin/token?{grant}&secret=s0"), "", &of(41002, "appid missing")),
            (
                "GET",
                &format!("/cgi-bin/token?{grant}&appid=&secret="),
                "",
                &of(41002, "appid missing"),
            ),
            ("GET", "/cgi-bin/token", "", &of(40002, "invalid grant_type")),
            ("POST", "/cgi-bin/stable_token", &json(r#","appid":"wx0","secret":"s0""#), good),
            (
                "POST",
                "/cgi-bin/stable_token",
                &json(r#","appid":"wx0","secret":"s0","force_refresh":true,"more":[]"#),
                good,
            ),
            (
                "POST",
                "/cgi-bin/stable_token",
                &json(r#","appid":"wx0""#),
                &of(41004, "appsecret missing"),
            ),
            (
                "POST",
                "/cgi-bin/stable_token",
                &json(r#","appid":7"#),
                &of(47001, "data format error"),
            ),
            ("POST", "/cgi-bin/stable_token?appid=wx0", "", &of(44002, "empty post data")),
            ("GET", "/cgi-bin/stable_token", "", &of(43002, "require POST method")),
            ("GET", &ticket, "", r#"{"errcode":0,"errmsg":"ok","ticket":"*","expires_in":7200}"#),
            (
                "POST",
                &ticket,
                "{}",
                r#"{"errcode":0,"errmsg":"ok","ticket":"*","expires_in":7200}"#,
            ),
            ("GET", "/cgi-bin/ticket/getticket?type=jsapi", "", &of(41001, "access_token missing")),
            ("GET", &callback, "", r#"{"ip_list":["192.0.2.1","192.0.2.2"]}"#),
            (
                "POST",
                "/cgi-bin/clear_quota/v2?appid=wx0&appsecret=s0",
                "",
                r#"{"errcode":0,"errmsg":"ok"}"#,
            ),
            (
                "POST",
                "/cgi-bin/clear_quota/v2",
                r#"{"appid":"wx0","appsecret":"s0"}"#,
                r#"{"errcode":0,"errmsg":"ok"}"#,
            ),
            (
                "GET",
                "/cgi-bin/clear_quota/v2?appid=wx0&appsecret=s0",
                "",
                &of(43002, "require POST method"),
            ),
            ("GET", "/cgi-bin/menu", "", &of(40066, "invalid url")),
        ] {
            check(&mut model, method, target, body, expected);
        }
    }
}
