import ComposefsCVersion

/// The release, as `cfsoci --version` prints it.
package enum Version {
    package static let text = String(cString: cfsoci_release())

    /// The commit that the program was built from; nil if the build did not say.
    package static var commit: String? {
        let text = String(cString: cfsoci_commit())
        return text.isEmpty ? nil : text
    }
}
