//! Compiles the C side against the libjpeg-turbo that `turbojpeg-sys` has built, with its assembly or not at all.

fn main() {
    println!("cargo:rerun-if-changed=src/jpeg.c");
    let include = std::env::var("DEP_TURBOJPEG_INCLUDE").expect("turbojpeg-sys says where its headers are");
    let mut c = cc::Build::new();
    c.file("src/jpeg.c").opt_level(3).warnings_into_errors(true);
    for path in include.split(',') {
        c.include(path);
    }
    c.compile("patho_jpeg");
}
