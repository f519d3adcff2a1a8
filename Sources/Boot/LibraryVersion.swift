internal import ComposefsCPCRE2

/// The version of the running PCRE2; pcre2_config(3).
package func runningPcre2Version() -> String {
    // Without a buffer, the call returns how many bytes it would write.
    let length = pcre2_config_8(UInt32(PCRE2_CONFIG_VERSION), nil)
    guard length > 0, length <= 256 else { return "unknown" }
    var text = [UInt8](repeating: 0, count: Int(length))
    text.withUnsafeMutableBytes { _ = pcre2_config_8(UInt32(PCRE2_CONFIG_VERSION), $0.baseAddress) }
    // The version and a date.
    return String(decoding: text.prefix { $0 != 0 && $0 != UInt8(ascii: " ") }, as: UTF8.self)
}
