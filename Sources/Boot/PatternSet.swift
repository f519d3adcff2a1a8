import ComposefsBytes
import ComposefsCPCRE2

/// Compiled regular expressions, matched as bytes.
///
/// SELinux's own library uses PCRE2. Just-in-time compilation is off, because the patterns come from an image that is not trusted.
final class PatternSet {
    private var codes: [OpaquePointer] = []
    private var compiledBytes = 0
    private let compileContext: OpaquePointer?
    private let matchContext: OpaquePointer?
    private let matchData: OpaquePointer?

    init() {
        compileContext = pcre2_compile_context_create_8(nil)
        matchContext = pcre2_match_context_create_8(nil)
        matchData = pcre2_match_data_create_8(1, nil)
        if let compileContext {
            _ = pcre2_set_max_pattern_length_8(compileContext, BootLimits.fieldBytes + 8)
            _ = pcre2_set_parens_nest_limit_8(compileContext, BootLimits.nestedGroups)
        }
        if let matchContext {
            _ = pcre2_set_match_limit_8(matchContext, BootLimits.matchSteps)
            _ = pcre2_set_depth_limit_8(matchContext, BootLimits.matchSteps)
            _ = pcre2_set_heap_limit_8(matchContext, BootLimits.matchKibibytes)
        }
    }

    deinit {
        for code in codes { pcre2_code_free_8(code) }
        pcre2_match_data_free_8(matchData)
        pcre2_match_context_free_8(matchContext)
        pcre2_compile_context_free_8(compileContext)
    }

    /// Compiles a pattern. A dot matches every byte.
    ///
    /// - Returns: its number.
    func add(_ pattern: [UInt8]) throws(PatternFault) -> Int32 {
        // Without a match context there would be no limits.
        guard compileContext != nil, matchContext != nil, matchData != nil else { throw .outOfMemory }
        let options = PCRE2_DOTALL | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_UTF | PCRE2_NEVER_UCP
        var code: Int32 = 0
        var offset = 0
        let compiled = pattern.withUnsafeBufferPointer {
            pcre2_compile_8($0.baseAddress, $0.count, options, &code, &offset, compileContext)
        }
        guard let compiled else { throw .syntax(code: code, text: Self.message(code), offset: offset, pattern: ByteString(pattern)) }
        codes.append(compiled)
        var size = 0
        _ = pcre2_pattern_info_8(compiled, UInt32(PCRE2_INFO_SIZE), &size)
        compiledBytes += size
        guard compiledBytes <= BootLimits.compiledBytes else {
            throw .tooLarge(limit: BootLimits.compiledBytes)
        }
        return Int32(codes.count - 1)
    }

    /// Whether a pattern matches at the start of the subject.
    func matches(_ pattern: Int32, _ subject: [UInt8]) throws(PatternFault) -> Bool {
        let result = subject.withUnsafeBufferPointer {
            pcre2_match_8(codes[Int(pattern)], $0.baseAddress, $0.count, 0, PCRE2_ANCHORED, matchData, matchContext)
        }
        // 0: the pattern matches, and has more groups than the match data holds.
        if result >= 0 { return true }
        if result == PCRE2_ERROR_NOMATCH { return false }
        throw .match(code: result, text: Self.message(result))
    }

    private static func message(_ code: Int32) -> String {
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 256) { buffer in
            let length = pcre2_get_error_message_8(code, buffer.baseAddress, buffer.count)
            guard length > 0 else { return "error \(code) of the pattern matcher" }
            return String(decoding: buffer[..<Int(length)], as: UTF8.self)
        }
    }
}
