// Prints for spreadsheets: CSV whose text they do not run as formulas, and cells of XLSX.
#include "print.h"

// --- CSV for spreadsheets: an apostrophe stops them from running text as a formula ---

// Size of a leading blank or quote, ASCII or not, that spreadsheets skip before a formula; else 0.
static int32_t ignored(const u8 *s, int32_t n) {
  if (*s == ' ' || *s == '"' || *s == '\'' || *s == '`') return 1;
  if (n > 1 && s[0] == 0xC2 && s[1] == 0xA0) return 2;
  if (n < 3) return 0;
  if (s[0] == 0xE2 && s[1] == 0x80 && (s[2] <= 0x8F || s[2] >= 0x98)) return 3; // U+2000 to U+203F
  if (s[0] == 0xE2 && s[1] == 0x81 && s[2] >= 0x9F) return 3;                   // U+205F to U+207F
  if (s[0] == 0xE3 && s[1] == 0x80 && s[2] == 0x80) return 3;
  return s[0] == 0xEF && s[1] == 0xBB && s[2] == 0xBF ? 3 : 0;
}

// Whether text begins like a formula: with = + - @ or one of their full-width or small forms.
static int32_t active(const u8 *s, int32_t n) {
  for (int32_t k; n > 0 && (k = ignored(s, n)); s += k, n -= k) {}
  if (n < 1) return 0;
  if (*s == '=' || *s == '+' || *s == '-' || *s == '@') return 1;
  if (n < 3) return 0;
  if (s[0] == 0xE2) return s[1] == 0x88 && s[2] == 0x92;
  if (s[0] != 0xEF) return 0;
  if (s[1] == 0xBC) return s[2] == 0x9D || s[2] == 0x8B || s[2] == 0x8D || s[2] == 0xA0;
  return s[1] == 0xB9 && (s[2] == 0xA2 || s[2] == 0xA3 || s[2] == 0xA6 || s[2] == 0xAB);
}

// Whether a spreadsheet may split cells at a character that is not a comma, even within quotes.
static inline int32_t parts(u8 c) { return c == ';' || c == '\t' || c == '\n' || c == '\r'; }

// Whether a cell begins like a formula or with a separator other than a semicolon.
static int32_t hostile(const u8 *s, int32_t n) {
  if (n > 0 && parts(*s) && *s != ';') return 1;
  for (int32_t k; n > 0 && ((k = ignored(s, n)) || (k = parts(*s) && *s != ';')); s += k, n -= k) {}
  return active(s, n);
}

// Prints a cell that no spreadsheet runs. `json`: the text begins with a bracket, so it is
// harmless.
u8 *safe_text(u8 *o, const u8 *s, int32_t n, int32_t json) {
  u8 *start = o;
  const u8 *from = s;
  int32_t size = n, armed = !json && hostile(s, n);
  while (n > 0 && !armed) {
    COPY_UNTIL(wasm_v128_or(wasm_v128_or(IS(';'), IS('\t')), wasm_v128_or(IS('\n'), IS('\r'))));
    armed = 1;
  }
  if (!armed) return csv_text(start, from, size);
  o = start, s = from, n = size;
  *o++ = '"';
  if (!json && hostile(s, n)) *o++ = '\'';
  for (; n > 0; s++, n--) {
    if (*s == '"') *o++ = '"';
    *o++ = *s;
    if (parts(*s) && active(s + 1, n - 1)) *o++ = '\'';
  }
  *o++ = '"';
  return o;
}

// --- XLSX ---

// Set where a cell does not hold its value exactly, as a value of its type.
int32_t lossy;

static const int32_t MARCH_1900 = -36465; // days from 2000-01-01; before it the calendars differ
static const int32_t EPOCH = 36526;       // the serial number of 2000-01-01
static const int32_t MOST_UNITS = 32767;  // UTF-16 units in one cell
static const int32_t EXACT = 15;          // the digits that spreadsheets keep of a number

static u8 *open_text(u8 *o) { return word(o, "<c t=\"inlineStr\"><is><t xml:space=\"preserve\">"); }
static u8 *close_text(u8 *o) { return word(o, "</t></is></c>"); }
static u8 *close_number(u8 *o) { return word(o, "</v></c>"); }

// Closes the number printed between `digits` and `o`, or turns it into text if it has more digits
// than spreadsheets keep. The cell begins at `start`.
static u8 *number_or_text(u8 *start, u8 *digits, u8 *o) {
  int32_t count = 0, size = (int32_t)(o - digits);
  for (u8 *p = digits; p < o; p++)
    if (*p >= '0' && *p <= '9' && (count || *p != '0')) count++;
  if (count <= EXACT) return close_number(o);
  lossy = 1;
  u8 copy[128]; // no printed number is longer
  for (int32_t i = 0; i < size; i++) copy[i] = digits[i];
  o = open_text(start);
  for (int32_t i = 0; i < size; i++) *o++ = copy[i];
  return close_text(o);
}

u8 *sheet_bool(u8 *o, int32_t value) {
  return word(o, value ? "<c t=\"b\"><v>1</v></c>" : "<c t=\"b\"><v>0</v></c>");
}

u8 *sheet_integer(u8 *o, int64_t value) {
  u8 *digits = word(o, "<c><v>");
  return number_or_text(o, digits, integer(digits, value));
}

u8 *sheet_numeric(u8 *o, const u8 *p, int32_t n) {
  u8 *digits = word(o, "<c><v>");
  return number_or_text(o, digits, numeric(digits, p, n));
}

u8 *sheet_float(u8 *o, const u8 *p, int32_t n) {
  if (p[n - 1] > '9') { // NaN, Infinity
    lossy = 1;
    return sheet_text(o, p, n);
  }
  return close_number(put(word(o, "<c><v>"), p, n));
}

u8 *sheet_bytes(u8 *o, const u8 *p, int32_t n) {
  if (n > MOST_UNITS / 4 * 3) return 0;
  return close_text(base64(open_text(o), p, n));
}

u8 *sheet_date(u8 *o, int32_t days) {
  if (days < MARCH_1900) {
    lossy = 1;
    return close_text(date(open_text(o), days));
  }
  if (days == INT32_MAX) return sheet_date(o, 2921939); // see date()
  return close_number(integer(word(o, "<c s=\"1\"><v>"), days + EPOCH));
}

// Prints a serial number of days. Twelve digits after the point give the time of the day.
u8 *sheet_time(u8 *o, int64_t us) {
  const int64_t day = 86400000000;
  int64_t days = us / day, rest = us % day;
  if (rest < 0) rest += day, days--;
  lossy = rest % 1000 != 0; // spreadsheets keep milliseconds
  if (days < MARCH_1900 || us == INT64_MAX) {
    lossy = 1;
    return close_text(timestamp(open_text(o), us));
  }
  o = integer(word(o, "<c s=\"2\"><v>"), days + EPOCH);
  *o++ = '.';
  for (int32_t half = 0; half < 2; half++) {
    rest *= 1000000;
    int64_t part = rest / day;
    rest %= day;
    for (int32_t k = 100000; k; k /= 10) *o++ = (u8)('0' + part / k % 10);
  }
  return close_number(o);
}

static int32_t hexadecimal(u8 c) {
  return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'f');
}

// Whether text begins like an escaped character of XLSX, such as "_x000D_".
static int32_t escaped(const u8 *s, int32_t n) {
  if (n < 7 || s[1] != 'x' || s[6] != '_') return 0;
  return hexadecimal(s[2]) && hexadecimal(s[3]) && hexadecimal(s[4]) && hexadecimal(s[5]);
}

u8 *sheet_text(u8 *o, const u8 *s, int32_t n) {
  int32_t units = n;
  if (n > MOST_UNITS) {
    units = 0;
    for (int32_t i = 0; i < n; i++) units += ((s[i] & 0xC0) != 0x80) + (s[i] >= 0xF0);
  }
  if (units > MOST_UNITS) return 0;
  o = open_text(o);
  while (n > 0) {
    COPY_UNTIL(wasm_v128_or(wasm_v128_or(CONTROL, IS('_')),
                            wasm_v128_or(IS('<'), wasm_v128_or(IS('>'), IS('&')))));
    if (*s == '\r') o = word(o, "_x000D_");
    else if (*s == '_' && escaped(s, n)) o = word(o, "_x005F_");
    else o = xml_char(o, *s, 0);
    s++, n--;
  }
  return close_text(o);
}
