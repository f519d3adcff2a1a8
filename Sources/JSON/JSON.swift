// JSON: a strict parser and serialiser (RFC 8259).
//
// The module exists because digests depend on exact bytes and because documents are hostile: duplicate keys are refused, the order of
// members is kept, 64-bit integers are exact, and nesting and memory are limited. It knows no document types; OCIModel and others do.
//
// - `JSONValue` and `JSONObject` are the document.
// - `JSONLimits` bounds what a document may cost; `JSONError` names the offset of an error.
