// Every word of the page, in both languages; how numbers, times and durations are written.

const one = (count, single, several) => (count === 1 ? single : several.replace("#", number(count)));

const en = {
  skip: "Skip to the sources",
  title: "WeChat tokens",
  language: "中文",
  languageLabel: "切换到中文",
  themes: { system: "Colours: as the system", light: "Colours: light", dark: "Colours: dark" },
  signOut: "Sign out",
  noScript: "This page needs JavaScript.",

  welcome: "How are the tokens?",
  welcomeMore: "Show your key to see the sources that it may read.",
  key: "Key",
  keyHint: "Of a client in the config, or the request_secret.",
  signIn: "Sign in",
  signingIn: "Signing in…",
  custody: "The key stays in this tab (sessionStorage), is sent to this server alone, in a header, and is forgotten when you close the tab or sign out. Tokens themselves are never shown here.",
  inTheClear: "This connection is not encrypted. Others on the way can read the key.",
  keyMissing: "Enter a key.",
  keyUnknown: "This key is not known, or may not be used from your address.",
  keyNoMore: "The key is not accepted any more. Sign in again.",
  keysTooMany: (seconds) => `Too many wrong keys came from your address. Try again in ${duration(seconds)}.`,
  unreachable: "The server does not answer. Is it running?",
  unexpected: (message) => `The server says: ${message}`,

  connection: { live: "Connected", connecting: "Connecting…", lost: "Disconnected", paused: "Paused" },
  lost: (seconds) => seconds > 0
    ? `Disconnected. What you see is from before. Trying again in ${duration(seconds)}.`
    : "Disconnected. What you see is from before. Trying again…",
  crowded: (seconds) => `Too many pages are open with this key. Trying again in ${duration(seconds)}.`,
  tryNow: "Try now",
  back: "Connected again.",

  allWell: "All well",
  failing: (count) => one(count, "1 source is failing", "# sources are failing"),
  lacking: (count) => one(count, "1 source has no token", "# sources have no token"),
  failingToo: (count) => one(count, "another is failing", "# others are failing"),
  comma: ", ",
  stillFor: (count, span) => one(count, `Its token works for another ${span}.`, `The first of their tokens ends in ${span}.`),
  lackingMore: "Whoever asks for a token there gets none. What to do is below.",
  noSources: "No sources",
  noSourcesMore: "None is configured, or none for this key.",
  wellMore: "Every source has a token, and its renewals succeed.",
  sources: (count) => one(count, "1 source", "# sources"),
  nextRenewal: (span) => `next renewal in ${span}`,
  runningFor: (span) => `running for ${span}`,
  version: (version) => `version ${version}`,

  filter: "Filter by name",
  all: "All",
  byState: "Show by state",
  nothingMatches: "No source matches.",
  showAll: "Show all",
  list: "Sources",

  states: { live: "Live", failing: "Failing", expired: "Expired", absent: "No token" },
  left: (span) => `${span} left`,
  endedAgo: (span) => `ended ${span} ago`,
  never: "never had one",
  renewsIn: (span) => `renews in ${span}`,
  triesIn: (span) => `next try in ${span}`,
  renewing: "renewing now…",
  trying: "trying now…",
  anyMoment: "any moment now",
  lastDay: "Last 24 h",
  ofDay: (renewed, failed, isPart) => {
    const words = `${number(renewed)} renewed` + (failed ? `, ${number(failed)} failed` : "");
    return isPart ? `at least ${words}` : words;
  },
  quietDay: "nothing yet",
  dayLabel: (words, last) => `Last 24 hours: ${words}.` + (last ? ` Last failure ${last}.` : ""),
  renewedAt: (at) => `renewed ${at}`,
  failedAt: (count, at, why) => `${one(count, "1 failure", "# failures")}, ${at}: ${why}`,
  generation: "Generation",
  callsToday: "Calls today",
  callsOf: (made, limit) => `${number(made)} of ${number(limit)}`,
  memoryOnly: "Not on disk: a restart would lose it",
  readBy: "Read by",
  nobody: "nobody since the start",
  reader: (client, protocol, reads) => `${client} · ${protocol} · ${number(reads)}`,
  defaultReader: "Whoever shows the request_secret or resp.password, or no key where Redis clients need none.",
  readerMore: (recent, at) => `${number(recent)} in the last minutes; last ${at}`,
  more: (count) => `${number(count)} more`,
  lastFailure: "Last failure",
  over: (at, why) => `${at}, ${why}; over since`,
  colon: ": ",
  errorCode: (code) => `Error ${code}`,
  todo: "What to do",
  classes: {
    transient: "likely to pass",
    unknown: "an answer that is not known",
    throttled: "too many calls a minute",
    quota_spent: "today's quota is spent",
    reserved: "a refresh by hand is held back",
    misconfigured: "needs you to act",
    dependency_invalid: "the token it depends on was refused",
    dependency_absent: "the source it depends on has no token",
  },

  refresh: "Refresh",
  refreshLabel: (name) => `Refresh ${name}`,
  fetching: "Fetching…",
  confirmTitle: (name) => `Fetch a new token for ${name}?`,
  confirmLead: "There is no need to: it is renewed by itself. Do it when the token has leaked, or is refused.",
  costCall: "It costs a fetch of today's quota.",
  costCallOf: (made, limit) => `It costs a fetch of today's quota: ${number(made)} of ${number(limit)} are spent.`,
  costOld: "The old token dies within minutes. Whoever holds it has to read the new one.",
  costCooldown: "If the token is only minutes old, the server may keep it and fetch nothing.",
  costCooldownLong: "Your key cannot force: if the token was fetched within the cooldown, the server keeps it and fetches nothing.",
  cancel: "Cancel",
  fetchNew: "Fetch a new token",
  fetched: (name) => `${name} has a new token.`,
  keptOld: (name) => `${name} keeps its token: it was fetched a moment ago. Nothing was spent.`,
  notFetched: (name, why) => `${name}: no new token. ${why}`,
  whyBelow: "The source says why.",
  again: (seconds) => ` Try again in ${duration(seconds)}.`,
  dismiss: "Dismiss",
  rotated: (name) => `${name} was renewed`,
  beganToFail: (name) => `${name} is failing`,
  recovered: (name) => `${name} has recovered`,
  units: [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]],
};

const zh = {
  skip: "跳到令牌源列表",
  title: "微信令牌",
  language: "English",
  languageLabel: "Switch to English",
  themes: { system: "配色：跟随系统", light: "配色：浅色", dark: "配色：深色" },
  signOut: "退出",
  noScript: "本页面需要 JavaScript。",

  welcome: "令牌都还好吗？",
  welcomeMore: "输入密钥，查看它可以读取的令牌源。",
  key: "密钥",
  keyHint: "配置中某个客户端的密钥，或 request_secret。",
  signIn: "登录",
  signingIn: "正在登录…",
  custody: "密钥只保存在本标签页（sessionStorage），只通过请求头发送给本服务器；关闭标签页或退出后即被清除。本页面从不显示令牌本身。",
  inTheClear: "当前连接未加密，密钥可能在途中被他人读取。",
  keyMissing: "请输入密钥。",
  keyUnknown: "密钥不正确，或不允许从您的地址使用。",
  keyNoMore: "密钥已不再有效，请重新登录。",
  keysTooMany: (seconds) => `您的地址错误密钥过多，请在 ${duration(seconds)}后重试。`,
  unreachable: "服务器没有响应，它在运行吗？",
  unexpected: (message) => `服务器返回：${message}`,

  connection: { live: "已连接", connecting: "正在连接…", lost: "连接已断开", paused: "已暂停" },
  lost: (seconds) => seconds > 0
    ? `连接已断开，显示的是之前的内容。${duration(seconds)}后重试。`
    : "连接已断开，显示的是之前的内容。正在重试…",
  crowded: (seconds) => `使用此密钥打开的页面过多。${duration(seconds)}后重试。`,
  tryNow: "立即重试",
  back: "已重新连接。",

  allWell: "一切正常",
  failing: (count) => `${number(count)} 个令牌源续期失败`,
  lacking: (count) => `${number(count)} 个令牌源没有可用令牌`,
  failingToo: (count) => `另有 ${number(count)} 个续期失败`,
  comma: "，",
  stillFor: (count, span) => count === 1 ? `其令牌还可使用 ${span}。` : `其中最早的令牌将在 ${span}后失效。`,
  lackingMore: "业务此时取不到令牌。处理办法见下方。",
  noSources: "没有令牌源",
  noSourcesMore: "尚未配置令牌源，或此密钥无权查看。",
  wellMore: "每个令牌源都有可用令牌，续期正常。",
  sources: (count) => `${number(count)} 个令牌源`,
  nextRenewal: (span) => `${span}后续期`,
  runningFor: (span) => `已运行 ${span}`,
  version: (version) => `版本 ${version}`,

  filter: "按名称筛选",
  all: "全部",
  byState: "按状态筛选",
  nothingMatches: "没有符合条件的令牌源。",
  showAll: "显示全部",
  list: "令牌源",

  states: { live: "有效", failing: "续期失败", expired: "已过期", absent: "无令牌" },
  left: (span) => `剩余 ${span}`,
  endedAgo: (span) => `${span}前失效`,
  never: "从未取得",
  renewsIn: (span) => `${span}后续期`,
  triesIn: (span) => `${span}后重试`,
  renewing: "正在续期…",
  trying: "正在重试…",
  anyMoment: "即将进行",
  lastDay: "最近 24 小时",
  ofDay: (renewed, failed, isPart) => {
    const words = `续期 ${number(renewed)} 次` + (failed ? `，失败 ${number(failed)} 次` : "");
    return isPart ? `至少${words}` : words;
  },
  quietDay: "暂无记录",
  dayLabel: (words, last) => `最近 24 小时：${words}。` + (last ? `最近一次失败：${last}。` : ""),
  renewedAt: (at) => `${at} 续期`,
  failedAt: (count, at, why) => `${at} 失败 ${number(count)} 次：${why}`,
  generation: "代次",
  callsToday: "今日调用",
  callsOf: (made, limit) => `${number(made)}/${number(limit)}`,
  memoryOnly: "尚未落盘：重启会丢失",
  readBy: "读取者",
  nobody: "启动以来无人读取",
  reader: (client, protocol, reads) => `${client} · ${protocol} · ${number(reads)}`,
  defaultReader: "使用 request_secret 或 resp.password 的读取者，或在 Redis 客户端无需密钥时未出示密钥的读取者。",
  readerMore: (recent, at) => `最近几分钟 ${number(recent)} 次；最后读取 ${at}`,
  more: (count) => `另外 ${number(count)} 个`,
  lastFailure: "最近失败",
  over: (at, why) => `${at}，${why}；已恢复`,
  colon: "：",
  errorCode: (code) => `错误 ${code}`,
  todo: "处理办法",
  classes: {
    transient: "可能是暂时的",
    unknown: "无法识别的应答",
    throttled: "每分钟调用过多",
    quota_spent: "今日额度已用尽",
    reserved: "手动刷新被暂缓",
    misconfigured: "需要您处理",
    dependency_invalid: "所依赖的令牌被拒绝",
    dependency_absent: "所依赖的令牌源没有令牌",
  },

  refresh: "刷新",
  refreshLabel: (name) => `刷新 ${name}`,
  fetching: "正在获取…",
  confirmTitle: (name) => `为 ${name} 获取新令牌？`,
  confirmLead: "通常不需要：服务器会自动续期。仅在令牌泄露或被拒绝时使用。",
  costCall: "消耗一次今日的获取额度。",
  costCallOf: (made, limit) => `消耗一次今日的获取额度：已用 ${number(made)}/${number(limit)}。`,
  costOld: "旧令牌将在几分钟内失效，持有它的业务必须重新读取。",
  costCooldown: "如果令牌刚获取不久（几分钟内），服务器可能会保留它，不再获取。",
  costCooldownLong: "您的密钥不能强制刷新：如果仍在冷却时间内，服务器会保留当前令牌，不再获取。",
  cancel: "取消",
  fetchNew: "获取新令牌",
  fetched: (name) => `${name} 已换成新令牌。`,
  keptOld: (name) => `${name} 的令牌刚获取不久，已保留；没有消耗额度。`,
  notFetched: (name, why) => `${name} 没有取得新令牌。${why}`,
  whyBelow: "原因见该令牌源。",
  again: (seconds) => ` 请在 ${duration(seconds)}后重试。`,
  dismiss: "关闭",
  rotated: (name) => `${name} 已续期`,
  beganToFail: (name) => `${name} 续期失败`,
  recovered: (name) => `${name} 已恢复`,
  units: [["天", 86400], ["小时", 3600], ["分钟", 60, "分"], ["秒", 1]],
};

const root = document.documentElement;

export const isChinese = () => root.lang.startsWith("zh");

/** The words of the language that is on. */
export const words = () => (isChinese() ? zh : en);

export function setLanguage(lang) {
  root.lang = lang;
  formats.clear();
}

/** What of a text with several languages is in the one that is on. */
export const inLanguage = (texts) => (isChinese() ? texts.zh : texts.en);

const formats = new Map();
function format(name, make) {
  if (!formats.has(name)) formats.set(name, make(root.lang));
  return formats.get(name);
}

export const number = (value) => format("number", (lang) => new Intl.NumberFormat(lang)).format(value);

/** A time in Unix seconds: of the day where it is of today, with the date where it is not. */
export function time(unix) {
  const at = new Date(unix * 1000);
  const isToday = at.toDateString() === new Date().toDateString();
  const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  return isToday
    ? format("clock", (lang) => new Intl.DateTimeFormat(lang, clock)).format(at)
    : format("date", (lang) => new Intl.DateTimeFormat(lang, { month: "short", day: "numeric", ...clock })).format(at);
}

/** Seconds in two units at most, with seconds in the last ten minutes, where they matter; or in one. */
export function duration(seconds, isRough = false) {
  const { units } = words();
  const whole = Math.max(0, Math.round(seconds));
  const found = units.findIndex(([, length]) => whole >= length);
  const at = found < 0 ? units.length - 1 : found;
  const [name, length, shorter = name] = units[at];
  const count = Math.floor(whole / length);
  const next = units[at + 1];
  const isMinutes = length === 60;
  if (isRough || !next || (isMinutes && count >= 10)) return `${count} ${name}`;
  const rest = Math.floor((whole % length) / next[1]);
  if (rest === 0 && !isMinutes) return `${count} ${name}`;
  return `${count} ${shorter} ${isMinutes ? String(rest).padStart(2, "0") : rest} ${next[0]}`;
}
