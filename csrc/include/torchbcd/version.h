// The version of the library: the one place it is written.
#pragma once

#define TORCHBCD_VERSION "0.1.0"
