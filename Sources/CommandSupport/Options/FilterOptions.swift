package import ArgumentParser
package import ComposefsOCI

/// Conditions on images, for commands that list or remove them.
package struct FilterOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Only images that satisfy the condition; may be repeated.",
            discussion: """
                reference=PATTERN or name=PATTERN (*, ? and […]; * also stands for slashes), before=IMAGE|TIME and since=IMAGE|TIME (when the \
                image was built), label=NAME[=VALUE], dangling=true|false, in-use=true|false, arch=ARCH, os=OS. Values of one key are \
                alternatives, but an image must have all labels; all keys must be satisfied.
                """, valueName: "key=value"))
    package var filter: [ByteString] = []

    package init() {}

    /// - Throws: `ValidationError` if a filter has an unknown key or no value.
    package func filters() throws -> [ImageFilter] {
        do throws(ImageFilterError) {
            return try filter.map { (text) throws(ImageFilterError) in try ImageFilter(parsing: text) }
        } catch {
            throw ValidationError("--filter: \(error)")
        }
    }
}
