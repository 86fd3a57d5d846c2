// Symbol visibility: the library is built with hidden visibility and exports what carries this
// mark.
#pragma once

#if defined(_WIN32)
#if defined(TORCHBCD_BUILD)
#define TORCHBCD_API __declspec(dllexport)
#else
#define TORCHBCD_API __declspec(dllimport)
#endif
#else
#define TORCHBCD_API __attribute__((visibility("default")))
#endif
