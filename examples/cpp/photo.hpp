// Photos as RGB: PPM (P6) always, JPEG where libjpeg is, turned as its EXIF says.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef HAVE_JPEG
#include <jpeglib.h>
#endif

struct Photo {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  // row by row
};

inline Photo read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  Photo photo;
  int most = 0;
  if (!(file >> magic >> photo.width >> photo.height >> most) || magic != "P6" || most != 255 ||
      photo.width < 1 || photo.height < 1) {
    throw std::runtime_error(path + " is not a binary PPM (P6, 255) without comments");
  }
  file.get();
  photo.rgb.resize(size_t(3) * photo.width * photo.height);
  if (!file.read(reinterpret_cast<char*>(photo.rgb.data()), std::streamsize(photo.rgb.size()))) {
    throw std::runtime_error(path + " is truncated");
  }
  return photo;
}

#ifdef HAVE_JPEG
// 1 to 8, as the EXIF of a JPEG has it; 1 where there is none.
inline int orientation_of(const jpeg_marker_struct* marker) {
  for (; marker; marker = marker->next) {
    if (marker->data_length < 14 || std::memcmp(marker->data, "Exif\0", 6) != 0) continue;
    const uint8_t* tiff = marker->data + 6;
    const size_t size = marker->data_length - 6;
    const auto number = [=](size_t at, size_t bytes) {
      size_t value = 0;
      for (size_t i = 0; at <= size - bytes && i < bytes; ++i)
        value = value << 8 | tiff[tiff[0] == 'I' ? at + bytes - 1 - i : at + i];
      return value;
    };
    const size_t first = number(4, 4), count = number(first, 2);
    for (size_t entry = first + 2; entry < first + 2 + 12 * count; entry += 12) {
      const size_t value = number(entry + 8, 2);
      if (number(entry, 2) == 0x112) return value >= 1 && value <= 8 ? int(value) : 1;
    }
  }
  return 1;
}

// As it is shown.
inline Photo turned(const Photo& photo, int orientation) {
  if (orientation == 1) return photo;
  const bool swapped = orientation > 4, turns = orientation == 3 || orientation == 7;
  const bool from_right = turns || orientation == 2 || orientation == 8;
  const bool from_below = turns || orientation == 4 || orientation == 6;
  Photo shown{swapped ? photo.height : photo.width, swapped ? photo.width : photo.height, {}};
  shown.rgb.reserve(photo.rgb.size());
  for (int y = 0; y < shown.height; ++y) {
    for (int x = 0; x < shown.width; ++x) {
      const int across = swapped ? y : x, down = swapped ? x : y;
      const int column = from_right ? photo.width - 1 - across : across;
      const int row = from_below ? photo.height - 1 - down : down;
      const uint8_t* pixel = photo.rgb.data() + size_t(3) * (size_t(row) * photo.width + column);
      shown.rgb.insert(shown.rgb.end(), pixel, pixel + 3);
    }
  }
  return shown;
}

inline Photo read_jpeg(const std::string& path, std::FILE* file) {
  jpeg_decompress_struct jpeg{};
  jpeg_error_mgr errors{};
  jpeg.err = jpeg_std_error(&errors);
  errors.error_exit = [](j_common_ptr common) {
    char reason[JMSG_LENGTH_MAX];
    common->err->format_message(common, reason);
    throw std::runtime_error(std::string("libjpeg refuses it: ") + reason);
  };
  errors.output_message = [](j_common_ptr) {};  // its warnings are one error, below
  jpeg_create_decompress(&jpeg);
  Photo photo;
  int orientation = 1;
  try {
    jpeg_stdio_src(&jpeg, file);
    jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(&jpeg, TRUE);
    orientation = orientation_of(jpeg.marker_list);
    jpeg.out_color_space = JCS_RGB;
    jpeg_start_decompress(&jpeg);
    photo.width = int(jpeg.output_width);
    photo.height = int(jpeg.output_height);
    photo.rgb.resize(size_t(3) * photo.width * photo.height);
    while (jpeg.output_scanline < jpeg.output_height) {
      JSAMPROW row = photo.rgb.data() + size_t(3) * photo.width * jpeg.output_scanline;
      jpeg_read_scanlines(&jpeg, &row, 1);
    }
    // libjpeg only warns, and makes up what is missing.
    if (errors.num_warnings) throw std::runtime_error("the JPEG is truncated or damaged");
  } catch (const std::exception& error) {
    jpeg_destroy_decompress(&jpeg);
    throw std::runtime_error(path + ": " + error.what());
  }
  jpeg_destroy_decompress(&jpeg);
  return turned(photo, orientation);
}
#endif

// JPEG or PPM, by its first bytes; a file that cannot be read passes, for read_photo to say so.
inline bool is_photo(const std::string& path) {
  if (path.rfind("camera:", 0) == 0 || path.find("://") != std::string::npos) return false;
  std::ifstream file(path, std::ios::binary);
  const int first = file.get(), second = file.get();
  return !file || (first == 0xFF && second == 0xD8) || (first == 'P' && second == '6');
}

inline Photo read_photo(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (!file) throw std::runtime_error("cannot read " + path);
  const bool jpeg = std::fgetc(file) == 0xFF;
  std::rewind(file);
#ifdef HAVE_JPEG
  if (jpeg) {
    try {
      Photo photo = read_jpeg(path, file);
      std::fclose(file);
      return photo;
    } catch (...) {
      std::fclose(file);
      throw;
    }
  }
#endif
  std::fclose(file);
  if (jpeg) throw std::runtime_error("built without libjpeg: convert " + path + " to PPM");
  return read_ppm(path);
}
